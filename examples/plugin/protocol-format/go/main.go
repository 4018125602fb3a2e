// Formats are part of an executor: this one takes Chat Completions and answers in Responses.
package main

import plugin "cpa-examples/lib/go"

const name = "example-protocol-format-go"

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
		ExecutorOutputFormats: []string{"responses"},
	},
}

var whole = plugin.Executed{
	Payload: []byte(`{"id":"` + name + `","object":"chat.completion"}`),
	Headers: plugin.Header{"Content-Type": {"application/json"}},
}

func init() {
	plugin.Serve(plugin.Methods{
		"plugin.register":     plugin.Constant(registration),
		"plugin.reconfigure":  plugin.Constant(registration),
		"executor.identifier": plugin.Constant(plugin.Identifier{Identifier: name}),
		"executor.execute":    plugin.Constant(whole),
	})
}

func main() {}
