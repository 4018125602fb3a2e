// A plugin that is told of every execution, and leaves it at that.
package main

import plugin "cpa-examples/lib/go"

const name = "example-usage-go"

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
	Capabilities: plugin.Capabilities{UsagePlugin: true},
}

func init() {
	plugin.Serve(plugin.Methods{
		"plugin.register":    plugin.Constant(registration),
		"plugin.reconfigure": plugin.Constant(registration),
		"usage.handle":       plugin.Constant(nil),
	})
}

func main() {}
