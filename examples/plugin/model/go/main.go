// A plugin with one fixed model, in front of whoever executes its provider.
package main

import plugin "cpa-examples/lib/go"

const name = "example-model-go"

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
	Capabilities: plugin.Capabilities{ModelProvider: true},
}

var models = plugin.Models{Provider: name, Models: []plugin.Model{{
	ID:                         name + "-model",
	Object:                     "model",
	OwnedBy:                    name,
	DisplayName:                "Model Example Model",
	SupportedGenerationMethods: []string{"chat"},
	ContextLength:              8192,
	MaxCompletionTokens:        1024,
	UserDefined:                true,
}}}

func init() {
	plugin.Serve(plugin.Methods{
		"plugin.register":    plugin.Constant(registration),
		"plugin.reconfigure": plugin.Constant(registration),
		"model.static":       plugin.Constant(models),
		"model.for_auth":     plugin.Constant(models),
	})
}

func main() {}
