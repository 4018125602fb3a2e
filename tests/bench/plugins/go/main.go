// A plugin in Go that only registers.
package main

/*
#include <stdint.h>
#include <stdlib.h>

typedef struct { void *ptr; size_t len; } buffer;
typedef struct { uint32_t abi_version; void *call; void *free_buffer; void *shutdown; } plugin_api;

extern int benchCall(char *method, uint8_t *req, size_t len, buffer *out);
extern void benchFree(void *ptr, size_t len);

static inline void fill(plugin_api *plugin) {
    plugin->abi_version = 1;
    plugin->call = (void *)benchCall;
    plugin->free_buffer = (void *)benchFree;
}
*/
import "C"

import "unsafe"

const registered = `{"ok":true,"result":{"schema_version":3,"metadata":{"Name":"empty","Version":"1",` +
	`"Author":"bench","GitHubRepository":"none"},"capabilities":{"request_normalizer":true}}}`

//export cliproxy_plugin_init
func cliproxy_plugin_init(host unsafe.Pointer, plugin *C.plugin_api) C.int {
	C.fill(plugin)
	return 0
}

//export benchCall
func benchCall(method *C.char, req *C.uint8_t, size C.size_t, out *C.buffer) C.int {
	out.ptr = C.CBytes([]byte(registered))
	out.len = C.size_t(len(registered))
	return 0
}

//export benchFree
func benchFree(ptr unsafe.Pointer, size C.size_t) { C.free(ptr) }

func main() {}
