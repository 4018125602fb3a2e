// Host-model-callback is a plugin with a page that runs a model through the host: host.model.execute, or
// host.model.execute_stream with its reads and its close. It sends nothing over the network itself.
//
// This file is what the page does; abi.go is the C side that every Go plugin has.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	defaultModel    = "gpt-5.5"
	defaultProtocol = "openai"
	defaultPrompt   = "Summarize host model callbacks in one short sentence."
	explicitClose   = "explicit close through host.model.stream_close"
	implicitClose   = "implicit close at management.handle return"

	// Not from net/http, which would be three quarters of the library.
	ok         = 200
	badRequest = 400
)

// ---- registration ----

type configField struct {
	Name        string
	Type        string
	EnumValues  []string
	Description string
}

type metadata struct {
	Name             string
	Version          string
	Author           string
	GitHubRepository string
	Logo             string
	ConfigFields     []configField
}

type registration struct {
	SchemaVersion int             `json:"schema_version"`
	Metadata      metadata        `json:"metadata"`
	Capabilities  map[string]bool `json:"capabilities"`
}

type resource struct {
	Path        string
	Menu        string
	Description string
}

var registered = registration{
	SchemaVersion: 3,
	Metadata: metadata{
		Name:             "host-model-callback",
		Version:          "0.1.0",
		Author:           "router-for-me",
		GitHubRepository: "https://github.com/router-for-me/CLIProxyAPI",
		Logo:             "https://raw.githubusercontent.com/router-for-me/CLIProxyAPI/main/docs/logo.png",
		ConfigFields:     []configField{},
	},
	Capabilities: map[string]bool{"management_api": true},
}

// dispatch answers one call of the host. found is false for methods that this plugin does not have.
func dispatch(method string, request []byte) (result any, found bool, err error) {
	switch method {
	case "plugin.register", "plugin.reconfigure":
		return registered, true, nil
	case "management.register":
		return map[string]any{"resources": []resource{{
			Path:        "/status",
			Menu:        "Host Model Callback",
			Description: "Runs a model through the host: /v0/resource/plugins/host-model-callback/status",
		}}}, true, nil
	case "management.handle":
		result, err = page(request)
		return result, true, err
	}
	return nil, false, nil
}

// ---- the page ----

type managementRequest struct {
	Method     string
	Path       string
	Headers    map[string][]string
	Query      map[string][]string
	Body       []byte
	CallbackID string `json:"host_callback_id"`
}

type managementResponse struct {
	StatusCode int
	Headers    map[string][]string
	Body       []byte
}

// page runs what the request asks for and shows how it went; failures of the host are part of the page.
func page(request []byte) (managementResponse, error) {
	var ask managementRequest
	if err := json.Unmarshal(request, &ask); err != nil {
		return managementResponse{}, fmt.Errorf("decode management request: %w", err)
	}
	wish, err := readWish(ask)
	if err != nil {
		return respond(badRequest, "text/plain; charset=utf-8", err.Error()+"\n"), nil
	}
	var done outcome
	if wish.Stream {
		done = stream(wish, ask.CallbackID)
	} else {
		done = execute(wish, ask.CallbackID)
	}
	return respond(ok, "text/html; charset=utf-8", render(wish, done)), nil
}

func respond(status int, contentType, body string) managementResponse {
	return managementResponse{status, map[string][]string{"Content-Type": {contentType}}, []byte(body)}
}

// ---- parameters ----

// wish is what the caller wants: members of a JSON body (management routes; resources have none), then the query.
type wish struct {
	Model         string              `json:"model"`
	Mode          string              `json:"mode"`
	Stream        bool                `json:"stream"`
	EntryProtocol string              `json:"entry_protocol"`
	ExitProtocol  string              `json:"exit_protocol"`
	Prompt        string              `json:"prompt"`
	Body          json.RawMessage     `json:"body"`
	Alt           string              `json:"alt"`
	ImplicitClose bool                `json:"implicit_close"`
	Headers       map[string][]string `json:"headers"`
	Query         map[string][]string `json:"query"`
}

func readWish(ask managementRequest) (wish, error) {
	var want wish
	if len(ask.Body) > 0 {
		var switched struct {
			Stream *bool `json:"stream"`
		}
		if err := json.Unmarshal(ask.Body, &want); err != nil {
			return want, fmt.Errorf("request body must be valid JSON: %w", err)
		}
		if err := json.Unmarshal(ask.Body, &switched); err != nil {
			return want, fmt.Errorf("request body must be valid JSON: %w", err)
		}
		if switched.Stream == nil {
			want.applyMode(want.Mode)
		}
	}
	if err := want.applyQuery(ask.Query); err != nil {
		return want, err
	}
	return want.withDefaults()
}

func (want *wish) applyQuery(query map[string][]string) error {
	for name, field := range map[string]*string{
		"model":          &want.Model,
		"entry_protocol": &want.EntryProtocol,
		"exit_protocol":  &want.ExitProtocol,
		"prompt":         &want.Prompt,
		"alt":            &want.Alt,
	} {
		if value := first(query, name); value != "" {
			*field = value
		}
	}
	want.applyMode(first(query, "mode"))
	// In this order, so that of two mistakes always the same one is reported.
	if err := applyBool(query, "stream", &want.Stream); err != nil {
		return err
	}
	if err := applyBool(query, "implicit_close", &want.ImplicitClose); err != nil {
		return err
	}
	if body := first(query, "body"); body != "" {
		if !json.Valid([]byte(body)) {
			return errors.New("query body must be valid JSON")
		}
		want.Body = json.RawMessage(body)
	}
	return nil
}

// applyMode understands the names of the two modes and ignores everything else.
func (want *wish) applyMode(mode string) {
	switch strings.ToLower(strings.TrimSpace(mode)) {
	case "stream", "streaming":
		want.Stream = true
	case "non-stream", "non_stream", "nonstream", "sync":
		want.Stream = false
	}
}

func (want wish) withDefaults() (wish, error) {
	for field, otherwise := range map[*string]string{
		&want.Model:         defaultModel,
		&want.EntryProtocol: defaultProtocol,
		&want.ExitProtocol:  defaultProtocol,
		&want.Prompt:        defaultPrompt,
	} {
		if strings.TrimSpace(*field) == "" {
			*field = otherwise
		}
	}
	if len(want.Body) > 0 && string(want.Body) != "null" {
		return want, nil
	}
	type message struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}
	body, err := json.Marshal(struct {
		Model    string    `json:"model"`
		Stream   bool      `json:"stream"`
		Messages []message `json:"messages"`
	}{want.Model, want.Stream, []message{{"user", want.Prompt}}})
	want.Body = body
	return want, err
}

func applyBool(query map[string][]string, name string, field *bool) error {
	text := strings.TrimSpace(first(query, name))
	if text == "" {
		return nil
	}
	value, err := strconv.ParseBool(text)
	if err != nil {
		return fmt.Errorf("%s must be a boolean: %w", name, err)
	}
	*field = value
	return nil
}

func first(query map[string][]string, name string) string {
	if values := query[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// ---- model calls ----

// outcome is how a model call went, as the page shows it.
type outcome struct {
	Status   int
	Headers  map[string][]string
	Body     []byte
	Chunks   []byte
	Err      error
	CloseErr error
}

type modelRequest struct {
	EntryProtocol string              `json:"entry_protocol"`
	ExitProtocol  string              `json:"exit_protocol"`
	Model         string              `json:"model"`
	Stream        bool                `json:"stream"`
	Body          []byte              `json:"body"`
	Headers       map[string][]string `json:"headers,omitempty"`
	Query         map[string][]string `json:"query,omitempty"`
	Alt           string              `json:"alt,omitempty"`
	CallbackID    string              `json:"host_callback_id,omitempty"`
}

func (want wish) modelRequest(callbackID string) modelRequest {
	return modelRequest{
		EntryProtocol: want.EntryProtocol,
		ExitProtocol:  want.ExitProtocol,
		Model:         want.Model,
		Stream:        want.Stream,
		Body:          want.Body,
		Headers:       want.Headers,
		Query:         want.Query,
		Alt:           want.Alt,
		CallbackID:    callbackID,
	}
}

func execute(want wish, callbackID string) outcome {
	var reply struct {
		StatusCode int                 `json:"status_code"`
		Headers    map[string][]string `json:"headers"`
		Body       []byte              `json:"body"`
	}
	if err := callHost("host.model.execute", want.modelRequest(callbackID), &reply); err != nil {
		return outcome{Err: err}
	}
	return outcome{Status: reply.StatusCode, Headers: reply.Headers, Body: reply.Body}
}

type streamRef struct {
	StreamID string `json:"stream_id"`
}

// stream reads a model stream to its end. Whoever opened a stream should close it; with implicit_close this plugin does
// not, and the host does when management.handle returns, because the stream was opened with that call's callback id.
func stream(want wish, callbackID string) (done outcome) {
	var opened struct {
		StatusCode int                 `json:"status_code"`
		Headers    map[string][]string `json:"headers"`
		StreamID   string              `json:"stream_id"`
	}
	if err := callHost("host.model.execute_stream", want.modelRequest(callbackID), &opened); err != nil {
		return outcome{Err: err}
	}
	if opened.StreamID == "" {
		return outcome{Err: errors.New("host.model.execute_stream returned an empty stream_id")}
	}
	ref := streamRef{opened.StreamID}
	if !want.ImplicitClose {
		defer func() { done.CloseErr = callHost("host.model.stream_close", ref, nil) }()
	}
	done = outcome{Status: opened.StatusCode, Headers: opened.Headers}
	for {
		var piece struct {
			Payload []byte `json:"payload"`
			Error   string `json:"error"`
			Done    bool   `json:"done"`
		}
		if err := callHost("host.model.stream_read", ref, &piece); err != nil {
			done.Status, done.Err = 0, err
			return done
		}
		done.Chunks = append(done.Chunks, piece.Payload...)
		if piece.Error != "" {
			done.Status, done.Err = 0, errors.New(piece.Error)
		}
		if piece.Done || piece.Error != "" {
			return done
		}
	}
}
