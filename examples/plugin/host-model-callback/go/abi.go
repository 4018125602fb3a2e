package main

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
extern int pluginCall(char *method, uint8_t *req, size_t req_len, cliproxy_buffer *out);
extern void pluginFree(void *ptr, size_t len);
extern void pluginShutdown(void);

static inline void fill_table(cliproxy_plugin_api *plugin) {
	plugin->abi_version = 1;
	plugin->call = (void *)pluginCall;
	plugin->free_buffer = (void *)pluginFree;
	plugin->shutdown = (void *)pluginShutdown;
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

type envelope struct {
	OK     bool            `json:"ok"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  *envelopeError  `json:"error,omitempty"`
}

type envelopeError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Error is how the page shows what the host reports.
func (e *envelopeError) Error() string { return e.Code + ": " + e.Message }

//export cliproxy_plugin_init
func cliproxy_plugin_init(api *C.cliproxy_host_api, plugin *C.cliproxy_plugin_api) C.int {
	if plugin == nil {
		return 1
	}
	host = api
	C.fill_table(plugin)
	return 0
}

//export pluginCall
func pluginCall(method *C.char, request *C.uint8_t, size C.size_t, out *C.cliproxy_buffer) C.int {
	if method == nil {
		return answer(out, envelope{Error: &envelopeError{"invalid_method", "method is required"}}, 1)
	}
	name := C.GoString(method)
	result, found, err := dispatch(name, C.GoBytes(unsafe.Pointer(request), C.int(size)))
	if err == nil && !found {
		return answer(out, envelope{Error: &envelopeError{"unknown_method", "unknown method: " + name}}, 0)
	}
	var encoded []byte
	if err == nil {
		encoded, err = json.Marshal(result)
	}
	if err != nil {
		return answer(out, envelope{Error: &envelopeError{"plugin_error", err.Error()}}, 1)
	}
	return answer(out, envelope{OK: true, Result: encoded}, 0)
}

func answer(out *C.cliproxy_buffer, reply envelope, status C.int) C.int {
	encoded, err := json.Marshal(reply)
	if err != nil || out == nil {
		return 1
	}
	out.ptr = C.CBytes(encoded) // the host gives it back through pluginFree
	out.len = C.size_t(len(encoded))
	return status
}

//export pluginFree
func pluginFree(ptr unsafe.Pointer, _ C.size_t) { C.free(ptr) }

//export pluginShutdown
func pluginShutdown() {}

// callHost asks the host and waits for its answer; result may be nil.
func callHost(method string, request, result any) error {
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
	var decoded envelope
	if err := json.Unmarshal(C.GoBytes(reply.ptr, C.int(reply.len)), &decoded); err != nil {
		return fmt.Errorf("decode %s answer: %w", method, err)
	}
	if !decoded.OK {
		if decoded.Error == nil {
			return fmt.Errorf("%s failed", method)
		}
		return decoded.Error
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(decoded.Result, result)
}

func main() {}
