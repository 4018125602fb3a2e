// A plugin that adds a flag to the command line, and acts on it.
package main

import plugin "cpa-examples/lib/go"

const name = "example-cli-go"

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
	Capabilities: plugin.Capabilities{CommandLinePlugin: true},
}

var flags = plugin.Flags{Flags: []plugin.Flag{{
	Name:  name + "-command",
	Usage: "Run the example plugin command",
	Type:  "bool",
}}}

var done = plugin.CommandDone{Stdout: []byte(`"` + name + ` command executed\\n"`)}

func init() {
	plugin.Serve(plugin.Methods{
		"plugin.register":       plugin.Constant(registration),
		"plugin.reconfigure":    plugin.Constant(registration),
		"command_line.register": plugin.Constant(flags),
		"command_line.execute":  plugin.Constant(done),
	})
}

func main() {}
