// A plugin that changes answers, before and after their translation: to fixed bodies.
package main

import plugin "cpa-examples/lib/go"

const name = "example-response-normalizer-go"

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
	Capabilities: plugin.Capabilities{ResponseBeforeTranslator: true, ResponseAfterTranslator: true},
}

func init() {
	plugin.Serve(plugin.Methods{
		"plugin.register":           plugin.Constant(registration),
		"plugin.reconfigure":        plugin.Constant(registration),
		"response.normalize_before": plugin.Constant(plugin.Body{Body: []byte(`{"response_normalized_before_by":"` + name + `"}`)}),
		"response.normalize_after":  plugin.Constant(plugin.Body{Body: []byte(`{"response_normalized_after_by":"` + name + `"}`)}),
	})
}

func main() {}
