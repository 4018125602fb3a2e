// An interceptor that keeps account of requests from their start to their end: it admits so many at a time, and none with
// a certain word in it.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"sync"

	plugin "cpa-examples/lib/go"
)

const (
	defaultConcurrency = 2
	defaultKeyword     = "blocked"

	// Not from net/http, which would be three quarters of the library.
	forbidden       = 403
	tooManyRequests = 429
)

var registration = plugin.Registration{
	SchemaVersion: 3,
	Metadata: plugin.Metadata{
		Name:             "request-lifecycle",
		Version:          "0.1.0",
		Author:           "router-for-me",
		GitHubRepository: "https://github.com/router-for-me/CLIProxyAPI",
		Logo:             "https://raw.githubusercontent.com/router-for-me/CLIProxyAPI/main/docs/logo.png",
		ConfigFields: []plugin.ConfigField{
			{Name: "max_concurrency", Type: "integer", EnumValues: []string{}, Description: "Admits so many requests at a time."},
			{Name: "reject_keyword", Type: "string", EnumValues: []string{}, Description: "Refuses requests that contain this; empty refuses none."},
		},
	},
	Capabilities: plugin.Capabilities{RequestInterceptor: true, RequestLifecyclePlugin: true},
}

// gate is the plugin's state. Every method may be called by many threads at once.
type gate struct {
	lock     sync.Mutex
	limit    int
	keyword  string
	admitted map[string]struct{} // ids of requests between their start and their end
}

var requests = gate{limit: defaultConcurrency, keyword: defaultKeyword, admitted: map[string]struct{}{}}

// register takes the settings; requests that were admitted under older ones stay so.
func (g *gate) register(request plugin.RegisterRequest) (any, error) {
	if request.SchemaVersion < 2 {
		return nil, errors.New("request lifecycle plugin requires host schema version 2 or newer")
	}
	settings, err := plugin.ReadSettings(request.ConfigYAML)
	if err != nil {
		return nil, err
	}
	limit, err := settings.Integer("max_concurrency", defaultConcurrency)
	if err != nil {
		return nil, err
	}
	if limit < 1 {
		return nil, errors.New("max_concurrency must be greater than zero")
	}
	keyword, err := settings.Text("reject_keyword", defaultKeyword)
	if err != nil {
		return nil, err
	}
	g.lock.Lock()
	defer g.lock.Unlock()
	g.limit, g.keyword = limit, strings.TrimSpace(keyword)
	return registration, nil
}

// ---- interceptors ----

type interceptRequest struct {
	RequestID string
	Headers   plugin.Header
	Body      []byte
}

type intercepted struct {
	Headers         plugin.Header `json:",omitempty"`
	Body            []byte        `json:",omitempty"`
	Terminate       bool          `json:",omitempty"`
	StatusCode      int           `json:",omitempty"`
	ResponseHeaders plugin.Header `json:",omitempty"`
	ResponseBody    []byte        `json:",omitempty"`
}

func (g *gate) enter(request interceptRequest) (any, error) {
	g.lock.Lock()
	defer g.lock.Unlock()
	if request.RequestID == "" {
		return nil, errors.New("request ID is required")
	}
	if _, in := g.admitted[request.RequestID]; in {
		return pass(request)
	}
	if g.keyword != "" && bytes.Contains(request.Body, []byte(g.keyword)) {
		return refuse(forbidden, "request blocked by plugin policy", nil)
	}
	if len(g.admitted) >= g.limit {
		return refuse(tooManyRequests, "plugin concurrency limit reached", plugin.Header{"Retry-After": {"1"}})
	}
	g.admitted[request.RequestID] = struct{}{}
	return pass(request)
}

func pass(request interceptRequest) (any, error) {
	return intercepted{Headers: request.Headers, Body: request.Body}, nil
}

func refuse(status int, message string, headers plugin.Header) (any, error) {
	type refusal struct {
		Message string `json:"message"`
		Type    string `json:"type"`
	}
	body, err := json.Marshal(map[string]refusal{"error": {message, "plugin_request_rejected"}})
	if err != nil {
		return nil, err
	}
	answer := plugin.Header{"Content-Type": {"application/json"}}
	for name, values := range headers {
		answer[name] = values
	}
	return intercepted{Terminate: true, StatusCode: status, ResponseHeaders: answer, ResponseBody: body}, nil
}

// ---- ends ----

// leave is told of every execution's end, also of those that were refused and never entered.
func (g *gate) leave(request struct{ RequestID string }) (any, error) {
	g.lock.Lock()
	defer g.lock.Unlock()
	delete(g.admitted, request.RequestID)
	return nil, nil
}

func (g *gate) clear() {
	g.lock.Lock()
	defer g.lock.Unlock()
	g.admitted = map[string]struct{}{}
}

func init() {
	plugin.OnShutdown(requests.clear)
	plugin.Serve(plugin.Methods{
		"plugin.register":          plugin.Reading(requests.register),
		"plugin.reconfigure":       plugin.Reading(requests.register),
		"request.intercept_before": plugin.Reading(requests.enter),
		"request.intercept_after":  plugin.Reading(pass),
		"request.complete":         plugin.Reading(requests.leave),
	})
}

func main() {}
