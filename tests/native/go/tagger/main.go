// Tagger sits in every stage that it is told to, puts its mark into bodies, writes down what it saw, and calls the host
// in the ways that tests ask for. Settings: marker, capabilities (words), nest (a word: nested executions on request).
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"cpa.test/native/plugin"
)

const everything = "request_interceptor response_interceptor response_stream_interceptor request_normalizer " +
	"request_lifecycle_plugin usage_plugin management_api"

// message has the members of all requests that matter here.
type message struct {
	RequestID, TraceID, Model, RequestedModel, Outcome, Path, Method, SourceFormat string
	Body                                                                           []byte
	OriginalRequest, RequestBody                                                   []byte
	HistoryChunks                                                                  [][]byte
	ChunkIndex                                                                     int
	Headers                                                                        map[string][]string
	Metadata                                                                       map[string]any
	Failed                                                                         bool
	Provider                                                                       string
	Detail                                                                         map[string]int64
	Scope                                                                          string `json:"host_callback_id"`
}

// event is one line of what the plugin saw.
type event struct {
	Method    string `json:"method"`
	RequestID string `json:"request_id,omitempty"`
	TraceID   string `json:"trace_id,omitempty"`
	Index     int    `json:"index"`
	Bodies    bool   `json:"bodies,omitempty"`
	History   int    `json:"history,omitempty"`
	Source    string `json:"source,omitempty"`
	Note      string `json:"note,omitempty"`
	Millis    int64  `json:"millis,omitempty"`
}

var (
	mutex    sync.Mutex
	settings plugin.Settings
	seen     []event
)

func record(happened event) {
	mutex.Lock()
	defer mutex.Unlock()
	seen = append(seen, happened)
}

func setting(key, otherwise string) string {
	mutex.Lock()
	defer mutex.Unlock()
	if value, found := settings[key]; found && value != "" {
		return value
	}
	return otherwise
}

func configure(request []byte) (any, error) {
	parsed, err := plugin.ParseSettings(request)
	if err != nil {
		return nil, err
	}
	mutex.Lock()
	settings = parsed
	mutex.Unlock()
	return plugin.Register("tagger", setting("capabilities", everything)), nil
}

// mark puts the member `"<marker>":1` first into a JSON object; other bodies stay as they are.
func mark(body []byte) any {
	if !bytes.HasPrefix(body, []byte("{")) {
		return struct{}{}
	}
	marked := append([]byte(fmt.Sprintf(`{"%s":1,`, setting("marker", "x_go"))), body[1:]...)
	return map[string]any{"Body": marked}
}

func handle(method string, request []byte) (any, error) {
	if method == "plugin.register" || method == "plugin.reconfigure" {
		return configure(request)
	}
	var ask message
	if err := json.Unmarshal(request, &ask); err != nil {
		return nil, err
	}
	happened := event{Method: method, RequestID: ask.RequestID, TraceID: ask.TraceID, Index: ask.ChunkIndex}
	happened.Bodies = len(ask.OriginalRequest) > 0 || len(ask.RequestBody) > 0
	happened.History = len(ask.HistoryChunks)
	happened.Source, _ = ask.Metadata["source"].(string)
	happened.Note = ask.Outcome
	switch method {
	case "management.register":
		return map[string]any{
			"resources": []any{map[string]any{"Path": "/seen", "Menu": "Seen", "Description": "What it saw"}},
		}, nil
	case "management.handle":
		return show()
	case "usage.handle":
		happened.Note = fmt.Sprintf("%s %s in=%d out=%d failed=%t", ask.Provider, ask.Model,
			ask.Detail["InputTokens"], ask.Detail["OutputTokens"], ask.Failed)
		record(happened)
		return struct{}{}, nil
	case "request.intercept_before":
		record(happened)
		act(ask)
		return mark(ask.Body), nil
	case "request.intercept_after", "request.complete":
		record(happened)
		return struct{}{}, nil
	case "request.normalize", "response.intercept_after", "response.intercept_stream_chunk":
		record(happened)
		return mark(ask.Body), nil
	}
	return nil, plugin.ErrUnknown
}

func show() (any, error) {
	mutex.Lock()
	defer mutex.Unlock()
	body, err := json.Marshal(seen)
	return map[string]any{
		"StatusCode": 200,
		"Headers":    map[string][]string{"Content-Type": {"application/json"}},
		"Body":       body,
	}, err
}

// act does what the header X-Go says, and only in plugins whose setting `acts` is that word.
func act(ask message) {
	words := ask.Headers["X-Go"]
	if len(words) == 0 || !strings.Contains(" "+setting("acts", "")+" ", " "+words[0]+" ") {
		return
	}
	switch words[0] {
	case "panic":
		go func() { panic("on purpose") }()
		select {}
	case "exit":
		os.Exit(3)
	case "nest":
		nest(ask)
	case "nest-stream":
		nestStream(ask)
	case "late":
		late(ask)
	case "wait":
		wait(ask)
	case "storm":
		storm(ask)
	}
}

type modelRequest struct {
	Entry  string              `json:"entry_protocol"`
	Model  string              `json:"model"`
	Stream bool                `json:"stream"`
	Body   []byte              `json:"body"`
	Header map[string][]string `json:"headers,omitempty"`
	Scope  string              `json:"host_callback_id,omitempty"`
}

type streamRead struct {
	Payload []byte `json:"payload"`
	Error   string `json:"error"`
	Done    bool   `json:"done"`
}

type streamRef struct {
	ID string `json:"stream_id"`
}

func model(scope string, stream bool) modelRequest {
	body := fmt.Sprintf(`{"model":"gpt","stream":%t,"messages":[{"role":"user","content":"nested"}]}`, stream)
	return modelRequest{Entry: "openai", Model: "gpt", Stream: stream, Body: []byte(body), Scope: scope}
}

func note(method string, result any, err error, started time.Time) {
	text := fmt.Sprint(result)
	if err != nil {
		text = "error: " + err.Error()
	}
	record(event{Method: method, Note: text, Millis: time.Since(started).Milliseconds()})
}

// nest asks the model with everything inherited, this header included.
func nest(ask message) {
	var reply struct {
		Status int    `json:"status_code"`
		Body   []byte `json:"body"`
	}
	started := time.Now()
	err := plugin.Call("host.model.execute", model(ask.Scope, false), &reply)
	note("nested", string(reply.Body), err, started)
}

func nestStream(ask message) {
	var opened streamRef
	started := time.Now()
	if err := plugin.Call("host.model.execute_stream", model(ask.Scope, true), &opened); err != nil {
		note("nested stream", "", err, started)
		return
	}
	var all bytes.Buffer
	for {
		var piece streamRead
		err := plugin.Call("host.model.stream_read", opened, &piece)
		all.Write(piece.Payload)
		all.WriteByte('\n')
		if err != nil || piece.Done {
			note("nested stream", all.String()+piece.Error, err, started)
			break
		}
	}
	note("stream_close", "{}", plugin.Call("host.model.stream_close", opened, nil), started)
}

// late opens a stream in the call's scope, and uses both after the call has returned, from a goroutine of its own.
func late(ask message) {
	var opened streamRef
	err := plugin.Call("host.model.execute_stream", model(ask.Scope, true), &opened)
	note("opened", opened.ID != "", err, time.Now())
	go func() {
		var piece streamRead
		// The scope ends with the call: from then on there is nothing to read, and no error either.
		for err == nil && !piece.Done {
			piece = streamRead{}
			err = plugin.Call("host.model.stream_read", opened, &piece)
		}
		note("late read", piece.Done, err, time.Now())
		err = plugin.Call("host.model.stream_close", opened, nil)
		note("late close", "{}", err, time.Now())
		var again streamRef
		err = plugin.Call("host.model.execute_stream", model(ask.Scope, true), &again)
		note("late stream", again.ID, err, time.Now())
		var reply struct {
			Status int `json:"status_code"`
		}
		err = plugin.Call("host.model.execute", model(ask.Scope, false), &reply)
		note("late execute", reply.Status, err, time.Now())
		line := map[string]any{"level": "info", "message": "late", "host_callback_id": ask.Scope}
		note("late log", "{}", plugin.Call("host.log", line, nil), time.Now())
		err = plugin.Call("host.stream.emit", map[string]any{"stream_id": "7", "payload": []byte("x")}, nil)
		note("late emit", "{}", err, time.Now())
		note("late end", "", nil, time.Now())
	}()
}

// wait blocks in a host call for as long as the host lets it: the mock provider is told to stall.
func wait(ask message) {
	request := model(ask.Scope, false)
	request.Header = map[string][]string{"X-Mock-First-Byte": {"60000"}}
	started := time.Now()
	record(event{Method: "waits"})
	err := plugin.Call("host.model.execute", request, nil)
	note("waited", "", err, started)
}

// storm makes many nested executions at once, each from a goroutine of its own.
func storm(ask message) {
	const parallel = 24
	var all sync.WaitGroup
	for i := 0; i < parallel; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			nest(ask)
		}()
	}
	all.Wait()
}

func init() {
	plugin.Handle = handle
	plugin.Shutdown = func() { fmt.Println("tagger was shut down") }
}

func main() {}
