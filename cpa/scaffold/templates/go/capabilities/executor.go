// needs: nothing
// Answers in the place of a provider. Clients reach it through models of this provider (capability model_provider, and a
// credential with this "type"), or through a router. Bodies are Chat Completions; CPA translates for other clients.
const (
	hello = "Hello from " + name + "."
	begin = `{"id":"` + provider + `-1","created":0,"model":"` + provider + `-model",`
)

var (
	isJSON   = plugin.Header{"Content-Type": {"application/json"}}
	isStream = plugin.Header{"Content-Type": {"text/event-stream"}}
)

func executorIdentifier(nothing) (any, error) { return plugin.Identifier{Identifier: provider}, nil }

func executorExecute(nothing) (any, error) {
	payload := begin + `"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"` +
		hello + `"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":4,"total_tokens":5}}`
	return plugin.Executed{Payload: []byte(payload), Headers: isJSON}, nil
}

// All chunks at once. For chunks as they come: answer without any, and call host.stream.emit from a goroutine.
func executorExecuteStream(nothing) (any, error) {
	chunk := func(delta, finish string) plugin.Chunk {
		return plugin.Chunk{Payload: []byte(begin + `"object":"chat.completion.chunk","choices":[{"index":0,"delta":` +
			delta + `,"finish_reason":` + finish + `}]}`)}
	}
	chunks := []plugin.Chunk{chunk(`{"role":"assistant","content":"`+hello+`"}`, "null"), chunk("{}", `"stop"`)}
	return plugin.Streamed{Headers: isStream, Chunks: chunks}, nil
}

func executorCountTokens(nothing) (any, error) {
	return plugin.Executed{Payload: []byte(`{"total_tokens":1}`), Headers: isJSON}, nil
}

// A plain HTTP request with a credential of this provider; hosts hardly ever ask for one.
func executorHttpRequest(nothing) (any, error) {
	return plugin.Response{StatusCode: 501, Body: []byte("not implemented")}, nil
}
