// A plugin that translates requests: into one fixed body.
package main

import plugin "cpa-examples/lib/go"

const name = "example-request-translator-go"

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
	Capabilities: plugin.Capabilities{RequestTranslator: true},
}

func init() {
	plugin.Serve(plugin.Methods{
		"plugin.register":    plugin.Constant(registration),
		"plugin.reconfigure": plugin.Constant(registration),
		"request.translate":  plugin.Constant(plugin.Body{Body: []byte(`{"translated_by":"` + name + `"}`)}),
	})
}

func main() {}
