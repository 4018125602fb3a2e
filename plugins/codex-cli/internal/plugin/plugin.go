// Package plugin is what a plugin in Go needs besides the contract: the C side, envelopes, dispatch of methods, calls of
// the host, reading settings. Copy this folder into your module; it uses the standard library only.
//
// A whole plugin:
//
//	package main
//
//	import plugin "cpa-examples/lib/go"
//
//	func normalize(request plugin.TransformRequest) (any, error) {
//		return plugin.Body{Body: append(request.Body, '\n')}, nil
//	}
//
//	func init() {
//		plugin.Serve(plugin.Methods{
//			"plugin.register":    plugin.Constant(registration),
//			"plugin.reconfigure": plugin.Constant(registration),
//			"request.normalize":  plugin.Reading(normalize),
//		})
//	}
//
//	func main() {}
//
// MEMORY. Requests are copied before a handler sees them, answers before the host does: there is nothing to free.
//
// ERRORS. An *Error that a handler returns is what the host is told. Every other error, and every panic, becomes one with
// the code plugin_error; the process goes on. A panic in a goroutine of your own still ends it.
//
// CONCURRENCY. Handlers run on any number of goroutines at once: what you keep between calls needs a lock.
package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Handler answers one call of one method: with what is encoded as its result (nil is an empty object), or an error.
type Handler func(request []byte) (any, error)

// Methods of a plugin, by the names of the contract.
type Methods map[string]Handler

// Error is a failure with a code of its own, from a handler to the host or from the host to CallHost.
type Error struct {
	Code       string `json:"code"`
	Message    string `json:"message"`
	Retryable  bool   `json:"retryable,omitempty"`
	HTTPStatus int    `json:"http_status,omitempty"` // what the client gets, where the failure is the client's
}

func (e *Error) Error() string {
	if e.Code == "" {
		return e.Message
	}
	return e.Code + ": " + e.Message
}

type envelope struct {
	OK     bool            `json:"ok"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  *Error          `json:"error,omitempty"`
}

var (
	served   Methods
	shutDown = func() {}
)

// Serve says what the plugin answers. Call it from init: the host asks as soon as the library is loaded.
func Serve(methods Methods) { served = methods }

// OnShutdown is called once, when the host is done with the plugin.
func OnShutdown(do func()) { shutDown = do }

// Constant answers every request with the same.
func Constant(result any) Handler {
	return func([]byte) (any, error) { return result, nil }
}

// Reading decodes the request for a handler; one that cannot be decoded is an error.
func Reading[Request any](handle func(Request) (any, error)) Handler {
	return func(raw []byte) (any, error) {
		var request Request
		if err := json.Unmarshal(raw, &request); err != nil {
			return nil, fmt.Errorf("decode request: %w", err)
		}
		return handle(request)
	}
}

// answer is the reply to one call of the host and its return code. The method is nil where the host gave none.
func answer(method *string, request []byte) ([]byte, int) {
	if method == nil {
		return closed(envelope{Error: &Error{Code: "invalid_method", Message: "method is required"}}, 1)
	}
	handle, found := served[*method]
	if !found {
		return closed(envelope{Error: &Error{Code: "unknown_method", Message: "unknown method: " + *method}}, 0)
	}
	result, err := handled(handle, request)
	var chosen *Error
	switch {
	case errors.As(err, &chosen):
		return closed(envelope{Error: chosen}, 0)
	case err != nil:
		return closed(envelope{Error: &Error{Code: "plugin_error", Message: err.Error()}}, 1)
	}
	return closed(envelope{OK: true, Result: result}, 0)
}

// handled runs a handler; a panic may not get into C, where it would end the process.
func handled(handle Handler, request []byte) (result json.RawMessage, err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fmt.Errorf("panic: %v", panicked)
		}
	}()
	value, err := handle(request)
	if err != nil {
		return nil, err
	}
	if value == nil {
		value = struct{}{}
	}
	return json.Marshal(value)
}

func closed(reply envelope, status int) ([]byte, int) {
	encoded, err := json.Marshal(reply)
	if err != nil { // all that is in it can be encoded
		return nil, 1
	}
	return encoded, status
}

// opened takes what the host answered out of its envelope.
func opened(method string, reply []byte, result any) error {
	var decoded envelope
	if err := json.Unmarshal(reply, &decoded); err != nil {
		return fmt.Errorf("decode %s answer: %w", method, err)
	}
	if !decoded.OK {
		if decoded.Error == nil {
			return fmt.Errorf("%s failed", method)
		}
		return decoded.Error
	}
	if result == nil || len(decoded.Result) == 0 {
		return nil
	}
	if err := json.Unmarshal(decoded.Result, result); err != nil {
		return fmt.Errorf("decode %s result: %w", method, err)
	}
	return nil
}
