// Asyncexec is an executor that streams from a goroutine after its call has returned. Settings: provider, input and
// output (format names), route (a model that it routes to itself), acme (a model that it registers).
package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"cpa.test/native/plugin"
)

type message struct {
	RequestedModel, Model, Format, SourceFormat, AuthID, AuthProvider string
	Payload, OriginalRequest                                          []byte
	Stream                                                            bool
	Method, Path                                                      string
	Headers                                                           map[string][]string
	StreamID                                                          string `json:"stream_id"`
	Scope                                                             string `json:"host_callback_id"`
}

var (
	mutex    sync.Mutex
	settings plugin.Settings
	running  int64 // goroutines that stream
	refused  int64 // emits that the host did not take
)

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
	words := "executor management_api model_router"
	if setting("model", "") != "" {
		words += " model_registrar"
	}
	answer := plugin.Register("asyncexec", words)
	answer.Capabilities["executor_model_scope"] = "both"
	answer.Capabilities["executor_input_formats"] = strings.Fields(setting("input", "openai"))
	answer.Capabilities["executor_output_formats"] = strings.Fields(setting("output", "openai"))
	return answer, nil
}

func handle(method string, request []byte) (any, error) {
	if method == "plugin.register" || method == "plugin.reconfigure" {
		return configure(request)
	}
	var ask message
	if err := json.Unmarshal(request, &ask); err != nil {
		return nil, err
	}
	switch method {
	case "executor.identifier":
		return map[string]any{"identifier": setting("provider", "acme")}, nil
	case "model.register":
		return map[string]any{
			"Provider": setting("provider", "acme"),
			"Models":   []any{map[string]any{"ID": setting("model", ""), "Object": "model", "OwnedBy": "acme"}},
		}, nil
	case "model.route":
		if route := setting("route", ""); route == "" || ask.RequestedModel != route {
			return struct{}{}, nil
		}
		return map[string]any{"Handled": true, "TargetKind": "self", "Reason": "mine"}, nil
	case "executor.execute":
		return map[string]any{
			"Payload": whole(ask),
			"Headers": map[string][]string{"Content-Type": {"application/json"}},
		}, nil
	case "executor.count_tokens":
		return map[string]any{"Payload": []byte(fmt.Sprintf(`{"input_tokens":%d}`, len(ask.Payload)))}, nil
	case "executor.execute_stream":
		if ask.StreamID == "" {
			return nil, fmt.Errorf("stream_id is required")
		}
		atomic.AddInt64(&running, 1)
		go stream(ask)
		return map[string]any{"headers": map[string][]string{"Content-Type": {"text/event-stream"}}}, nil
	case "management.register":
		return map[string]any{"resources": []any{map[string]any{"Path": "/state"}}}, nil
	case "management.handle":
		state := map[string]int64{"running": atomic.LoadInt64(&running), "refused": atomic.LoadInt64(&refused)}
		body, err := json.Marshal(state)
		return map[string]any{
			"Headers": map[string][]string{"Content-Type": {"application/json"}},
			"Body":    body,
		}, err
	}
	return nil, plugin.ErrUnknown
}

func whole(ask message) []byte {
	if ask.Format == "claude" {
		return []byte(fmt.Sprintf(`{"id":"m","type":"message","role":"assistant","model":%q,"content":[{"type":"text",`+
			`"text":"async"}],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}`, ask.Model))
	}
	return []byte(fmt.Sprintf(`{"id":"c","object":"chat.completion","created":1,"model":%q,"choices":[{"index":0,`+
		`"message":{"role":"assistant","content":"async"},"finish_reason":"stop"}],`+
		`"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`, ask.Model))
}

// wish reads `X-Chunks` and its like.
func wish(ask message, name string, otherwise int) int {
	if words := ask.Headers[name]; len(words) > 0 {
		if number, err := strconv.Atoi(words[0]); err == nil {
			return number
		}
	}
	return otherwise
}

// stream emits X-Chunks pieces (default 40, which is more than the host queues); X-Fail is where it ends with an error.
func stream(ask message) {
	defer atomic.AddInt64(&running, -1)
	failAt := wish(ask, "X-Fail", -1)
	for i, last := 0, wish(ask, "X-Chunks", 40); i < last; i++ {
		if i == failAt {
			plugin.Call("host.stream.close", map[string]any{"stream_id": ask.StreamID, "error": "backend vanished"}, nil)
			return
		}
		delta, finish := fmt.Sprintf(`{"content":"%d "}`, i), "null"
		if i == last-1 {
			delta, finish = "{}", `"stop"`
		}
		chunk := fmt.Sprintf(`{"id":"c","object":"chat.completion.chunk","created":1,"model":%q,"choices":[{"index":0,`+
			`"delta":%s,"finish_reason":%s}]}`, ask.Model, delta, finish)
		if err := plugin.Call("host.stream.emit",
			map[string]any{"stream_id": ask.StreamID, "payload": []byte(chunk)}, nil); err != nil {
			atomic.AddInt64(&refused, 1)
			return
		}
	}
	plugin.Call("host.stream.close", map[string]any{"stream_id": ask.StreamID}, nil)
}

func init() { plugin.Handle = handle }

func main() {}
