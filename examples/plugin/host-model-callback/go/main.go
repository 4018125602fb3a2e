// Host-model-callback is a plugin with a page that runs a model through the host: host.model.execute, or
// host.model.execute_stream with its reads and its close. It sends nothing over the network itself.
//
// This file is what the page does, render.go how it looks.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	plugin "cpa-examples/lib/go"
)

const (
	title           = "Host Model Callback"
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

var registration = plugin.Registration{
	SchemaVersion: 3,
	Metadata: plugin.Metadata{
		Name:             "host-model-callback",
		Version:          "0.1.0",
		Author:           "router-for-me",
		GitHubRepository: "https://github.com/router-for-me/CLIProxyAPI",
		Logo:             "https://raw.githubusercontent.com/router-for-me/CLIProxyAPI/main/docs/logo.png",
		ConfigFields:     []plugin.ConfigField{},
	},
	Capabilities: plugin.Capabilities{ManagementAPI: true},
}

var pages = plugin.Pages{Resources: []plugin.Resource{{
	Path:        "/status",
	Menu:        title,
	Description: "Runs a model through the host: /v0/resource/plugins/host-model-callback/status",
}}}

func init() {
	plugin.Serve(plugin.Methods{
		"plugin.register":     plugin.Constant(registration),
		"plugin.reconfigure":  plugin.Constant(registration),
		"management.register": plugin.Constant(pages),
		"management.handle":   plugin.Reading(handle),
	})
}

func main() {}

// ---- the page ----

// handle runs what the request asks for and shows how it went; failures of the host are part of the page.
func handle(ask plugin.PageRequest) (any, error) {
	want, err := readWish(ask)
	if err != nil {
		return plugin.Text(badRequest, err.Error()+"\n"), nil
	}
	var done outcome
	if want.Stream {
		done = stream(want, ask.CallbackID)
	} else {
		done = execute(want, ask.CallbackID)
	}
	return plugin.HTML(ok, render(want, done)), nil
}

// ---- parameters ----

// wish is what the caller wants: members of a JSON body (management routes; resources have none), then the query.
type wish struct {
	Model         string          `json:"model"`
	Mode          string          `json:"mode"`
	Stream        bool            `json:"stream"`
	EntryProtocol string          `json:"entry_protocol"`
	ExitProtocol  string          `json:"exit_protocol"`
	Prompt        string          `json:"prompt"`
	Body          json.RawMessage `json:"body"`
	Alt           string          `json:"alt"`
	ImplicitClose bool            `json:"implicit_close"`
	Headers       plugin.Header   `json:"headers"`
	Query         plugin.Header   `json:"query"`
}

func readWish(ask plugin.PageRequest) (wish, error) {
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

func (want *wish) applyQuery(query plugin.Header) error {
	for name, field := range map[string]*string{
		"model":          &want.Model,
		"entry_protocol": &want.EntryProtocol,
		"exit_protocol":  &want.ExitProtocol,
		"prompt":         &want.Prompt,
		"alt":            &want.Alt,
	} {
		if value := plugin.First(query, name); value != "" {
			*field = value
		}
	}
	want.applyMode(plugin.First(query, "mode"))
	// In this order, so that of two mistakes always the same one is reported.
	if err := applyBool(query, "stream", &want.Stream); err != nil {
		return err
	}
	if err := applyBool(query, "implicit_close", &want.ImplicitClose); err != nil {
		return err
	}
	if body := plugin.First(query, "body"); body != "" {
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

func applyBool(query plugin.Header, name string, field *bool) error {
	text := strings.TrimSpace(plugin.First(query, name))
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

// ---- model calls ----

// outcome is how a model call went, as the page shows it.
type outcome struct {
	Status   int
	Headers  plugin.Header
	Body     []byte
	Chunks   []byte
	Err      error
	CloseErr error
}

type modelRequest struct {
	EntryProtocol string        `json:"entry_protocol"`
	ExitProtocol  string        `json:"exit_protocol"`
	Model         string        `json:"model"`
	Stream        bool          `json:"stream"`
	Body          []byte        `json:"body"`
	Headers       plugin.Header `json:"headers,omitempty"`
	Query         plugin.Header `json:"query,omitempty"`
	Alt           string        `json:"alt,omitempty"`
	CallbackID    string        `json:"host_callback_id,omitempty"`
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
		StatusCode int           `json:"status_code"`
		Headers    plugin.Header `json:"headers"`
		Body       []byte        `json:"body"`
	}
	if err := plugin.CallHost("host.model.execute", want.modelRequest(callbackID), &reply); err != nil {
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
		StatusCode int           `json:"status_code"`
		Headers    plugin.Header `json:"headers"`
		StreamID   string        `json:"stream_id"`
	}
	if err := plugin.CallHost("host.model.execute_stream", want.modelRequest(callbackID), &opened); err != nil {
		return outcome{Err: err}
	}
	if opened.StreamID == "" {
		return outcome{Err: errors.New("host.model.execute_stream returned an empty stream_id")}
	}
	ref := streamRef{opened.StreamID}
	if !want.ImplicitClose {
		defer func() { done.CloseErr = plugin.CallHost("host.model.stream_close", ref, nil) }()
	}
	done = outcome{Status: opened.StatusCode, Headers: opened.Headers}
	for {
		var piece struct {
			Payload []byte `json:"payload"`
			Error   string `json:"error"`
			Done    bool   `json:"done"`
		}
		if err := plugin.CallHost("host.model.stream_read", ref, &piece); err != nil {
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
