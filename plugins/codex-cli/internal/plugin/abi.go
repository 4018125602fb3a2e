package plugin

/*
#include <stdint.h>
#include <stdlib.h>

// The contract: cpa/abi/cpa_plugin.h of CPA has it with all its rules.
typedef struct { void *ptr; size_t len; } cliproxy_buffer;

typedef struct {
	uint32_t abi_version;
	void *host_ctx;
	int (*call)(void *host_ctx, const char *method, const uint8_t *req, size_t req_len, cliproxy_buffer *out);
	void (*free_buffer)(void *ptr, size_t len);
} cliproxy_host_api;

typedef struct {
	uint32_t abi_version;
	void *call;
	void *free_buffer;
	void *shutdown;
} cliproxy_plugin_api;

// Go functions, exported below.
extern int cpaPluginCall(char *method, uint8_t *req, size_t req_len, cliproxy_buffer *out);
extern void cpaPluginFree(void *ptr, size_t len);
extern void cpaPluginShutdown(void);

static inline void fill_table(cliproxy_plugin_api *plugin) {
	plugin->abi_version = 1;
	plugin->call = (void *)cpaPluginCall;
	plugin->free_buffer = (void *)cpaPluginFree;
	plugin->shutdown = (void *)cpaPluginShutdown;
}

// Go cannot call C function pointers.
static inline int call_host(cliproxy_host_api *host, const char *method, void *req, size_t len, cliproxy_buffer *out) {
	return host->call(host->host_ctx, method, (const uint8_t *)req, len, out);
}

static inline void free_answer(cliproxy_host_api *host, cliproxy_buffer *answer) {
	host->free_buffer(answer->ptr, answer->len);
}
*/
import "C"

import (
	"encoding/json"
	"errors"
	"fmt"
	"unsafe"
)

// The host keeps this valid until the process ends.
var host *C.cliproxy_host_api

//export cliproxy_plugin_init
func cliproxy_plugin_init(api *C.cliproxy_host_api, table *C.cliproxy_plugin_api) C.int {
	if table == nil {
		return 1
	}
	host = api
	C.fill_table(table)
	return 0
}

//export cpaPluginCall
func cpaPluginCall(method *C.char, request *C.uint8_t, size C.size_t, out *C.cliproxy_buffer) C.int {
	if out == nil {
		return 1
	}
	var name *string
	if method != nil {
		text := C.GoString(method)
		name = &text
	}
	reply, status := answer(name, copied(unsafe.Pointer(request), size))
	out.ptr = C.CBytes(reply) // the host gives it back through cpaPluginFree
	out.len = C.size_t(len(reply))
	return C.int(status)
}

//export cpaPluginFree
func cpaPluginFree(memory unsafe.Pointer, _ C.size_t) { C.free(memory) }

//export cpaPluginShutdown
func cpaPluginShutdown() { shutDown() }

// copied is memory that belongs to somebody else. C.GoBytes would end at 2 GiB.
func copied(memory unsafe.Pointer, size C.size_t) []byte {
	if memory == nil || size == 0 {
		return nil
	}
	return append([]byte(nil), unsafe.Slice((*byte)(memory), int(size))...)
}

// CallHost asks the host, by a host.* method, and waits for its answer, which is decoded into result unless that is nil.
// Any goroutine may call, also after the handler that began it has returned.
//
// Whatever the host refuses is an *Error.
func CallHost(method string, request, result any) error {
	if host == nil {
		return errors.New("host callbacks are unavailable")
	}
	payload, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode %s request: %w", method, err)
	}
	name, data := C.CString(method), C.CBytes(payload)
	defer C.free(unsafe.Pointer(name))
	defer C.free(data)
	var reply C.cliproxy_buffer
	status := C.call_host(host, name, data, C.size_t(len(payload)), &reply)
	defer C.free_answer(host, &reply)
	if status != 0 {
		return fmt.Errorf("%s: the host cannot be called (%d)", method, int(status))
	}
	return opened(method, copied(reply.ptr, reply.len), result)
}
