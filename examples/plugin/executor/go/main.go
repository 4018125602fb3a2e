// A plugin that answers model requests itself, with fixed answers.
package main

import plugin "cpa-examples/lib/go"

const name = "example-executor-go"

var registration = plugin.Registration{
	SchemaVersion: 1,
	Metadata: plugin.Metadata{
		Name:             name,
		Version:          "0.1.0",
		Author:           "router-for-me",
		GitHubRepository: "https://github.com/router-for-me/CLIProxyAPI",
		Logo:             "https://example.invalid/" + name + ".png",
		ConfigFields:     []plugin.ConfigField{},
	},
	Capabilities: plugin.Capabilities{
		Executor:              true,
		ExecutorModelScope:    "both",
		ExecutorInputFormats:  []string{"chat-completions"},
		ExecutorOutputFormats: []string{"chat-completions"},
	},
}

var (
	isJSON = plugin.Header{"Content-Type": {"application/json"}}
	whole  = plugin.Executed{Payload: []byte(`{"id":"` + name + `","object":"chat.completion"}`), Headers: isJSON}
	// One chunk, which comes with the answer. A plugin that works longer answers at once and uses host.stream.emit.
	streamed = plugin.Streamed{
		Headers: plugin.Header{"Content-Type": {"text/event-stream"}},
		Chunks:  []plugin.Chunk{{Payload: []byte(`"data: ` + name + `\n\n"`)}},
	}
	response = plugin.Response{StatusCode: 200, Headers: isJSON, Body: []byte(`{"plugin":"` + name + `"}`)}
)

func init() {
	plugin.Serve(plugin.Methods{
		"plugin.register":         plugin.Constant(registration),
		"plugin.reconfigure":      plugin.Constant(registration),
		"executor.identifier":     plugin.Constant(plugin.Identifier{Identifier: name}),
		"executor.execute":        plugin.Constant(whole),
		"executor.execute_stream": plugin.Constant(streamed),
		"executor.count_tokens":   plugin.Constant(plugin.Executed{Payload: []byte(`{"total_tokens":0}`)}),
		"executor.http_request":   plugin.Constant(response),
	})
}

func main() {}
