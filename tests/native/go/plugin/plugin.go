// Package plugin is the C side of a Go plugin for CPA: the exported entry point, calls in, calls out. A plugin's main
// package sets Handle in an init function and has an empty main.
package plugin

/*
#include <stdint.h>
#include <stdlib.h>

typedef struct { void *ptr; size_t len; } buffer;
typedef int (*host_call)(void *ctx, const char *method, const uint8_t *req, size_t len, buffer *out);
typedef void (*free_call)(void *ptr, size_t len);
typedef struct { uint32_t abi_version; void *ctx; host_call call; free_call free_buffer; } host_api;
typedef struct { uint32_t abi_version; void *call; void *free_buffer; void *shutdown; } plugin_api;

// Defined by the exports below.
extern int cpaGoCall(char *method, uint8_t *req, size_t len, buffer *out);
extern void cpaGoFree(void *ptr, size_t len);
extern void cpaGoShutdown(void);

static inline void fill(plugin_api *plugin) {
    plugin->abi_version = 1;
    plugin->call = (void *)cpaGoCall;
    plugin->free_buffer = (void *)cpaGoFree;
    plugin->shutdown = (void *)cpaGoShutdown;
}

static inline int ask(host_api *host, const char *method, void *req, size_t len, buffer *out) {
    return host->call(host->ctx, method, (const uint8_t *)req, len, out);
}

static inline void give_back(host_api *host, buffer *answer) { host->free_buffer(answer->ptr, answer->len); }
*/
import "C"

import (
	"encoding/json"
	"errors"
	"strings"
	"unsafe"
)

// Handle answers one call of the host. Any goroutine, any number at a time.
var Handle func(method string, request []byte) (any, error)

// Shutdown, if set, runs once at the end.
var Shutdown func()

// ErrUnknown makes the envelope for methods that a plugin does not have.
var ErrUnknown = errors.New("unknown method")

var host *C.host_api

type envelope struct {
	OK     bool            `json:"ok"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  *failure        `json:"error,omitempty"`
}

type failure struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (f *failure) Error() string { return f.Code + ": " + f.Message }

//export cliproxy_plugin_init
func cliproxy_plugin_init(api *C.host_api, plugin *C.plugin_api) C.int {
	if api == nil || plugin == nil {
		return 1
	}
	host = api
	C.fill(plugin)
	return 0
}

//export cpaGoCall
func cpaGoCall(method *C.char, req *C.uint8_t, size C.size_t, out *C.buffer) C.int {
	result, err := Handle(C.GoString(method), C.GoBytes(unsafe.Pointer(req), C.int(size)))
	var reply envelope
	if err == nil {
		reply.OK = true
		reply.Result, err = json.Marshal(result)
	}
	if err != nil {
		reply = envelope{Error: &failure{Code: "plugin_error", Message: err.Error()}}
	}
	encoded, _ := json.Marshal(reply)
	out.ptr = C.CBytes(encoded)
	out.len = C.size_t(len(encoded))
	if err != nil && err != ErrUnknown {
		return 1
	}
	return 0
}

//export cpaGoFree
func cpaGoFree(ptr unsafe.Pointer, size C.size_t) { C.free(ptr) }

//export cpaGoShutdown
func cpaGoShutdown() {
	if Shutdown != nil {
		Shutdown()
	}
}

// Call asks the host. result may be nil.
func Call(method string, request, result any) error {
	payload, err := json.Marshal(request)
	if err != nil {
		return err
	}
	name, data := C.CString(method), C.CBytes(payload)
	defer C.free(unsafe.Pointer(name))
	defer C.free(data)
	var answer C.buffer
	status := C.ask(host, name, data, C.size_t(len(payload)), &answer)
	defer C.give_back(host, &answer)
	if status != 0 {
		return errors.New("the host cannot be asked")
	}
	var reply envelope
	if err := json.Unmarshal(C.GoBytes(answer.ptr, C.int(answer.len)), &reply); err != nil {
		return err
	}
	if !reply.OK {
		return reply.Error
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(reply.Result, result)
}

// Settings are the lines `key: value` of the plugin's part of the configuration.
type Settings map[string]string

// ParseSettings reads the request of plugin.register and plugin.reconfigure.
func ParseSettings(request []byte) (Settings, error) {
	var message struct {
		ConfigYAML []byte `json:"config_yaml"`
	}
	if err := json.Unmarshal(request, &message); err != nil {
		return nil, err
	}
	settings := Settings{}
	for _, line := range strings.Split(string(message.ConfigYAML), "\n") {
		if key, value, found := strings.Cut(line, ":"); found {
			settings[strings.TrimSpace(key)] = strings.Trim(strings.TrimSpace(value), `"'`)
		}
	}
	return settings, nil
}

// Registration is the answer to plugin.register.
type Registration struct {
	SchemaVersion int            `json:"schema_version"`
	Metadata      Metadata       `json:"metadata"`
	Capabilities  map[string]any `json:"capabilities"`
}

// Metadata is what a plugin says of itself.
type Metadata struct {
	Name, Version, Author, GitHubRepository string
}

// Register makes a Registration with schema 3 and the capabilities in words.
func Register(name string, words string) Registration {
	switches := map[string]any{}
	for _, word := range strings.Fields(words) {
		switches[word] = true
	}
	return Registration{3, Metadata{name, "1", "tests", "none"}, switches}
}
