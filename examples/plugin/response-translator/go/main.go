// A plugin that translates answers: into one fixed body.
package main

import plugin "cpa-examples/lib/go"

const name = "example-response-translator-go"

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
	Capabilities: plugin.Capabilities{ResponseTranslator: true},
}

func init() {
	plugin.Serve(plugin.Methods{
		"plugin.register":    plugin.Constant(registration),
		"plugin.reconfigure": plugin.Constant(registration),
		"response.translate": plugin.Constant(plugin.Body{Body: []byte(`{"response_translated_by":"` + name + `"}`)}),
	})
}

func main() {}
