// A plugin that accepts every client: whoever loads it opens the proxy to all who can reach it.
package main

import plugin "cpa-examples/lib/go"

const name = "example-frontend-auth-go"

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
	Capabilities: plugin.Capabilities{FrontendAuthProvider: true},
}

var anybody = plugin.Client{Authenticated: true, Principal: name, Metadata: map[string]string{"provider": name}}

func init() {
	plugin.Serve(plugin.Methods{
		"plugin.register":            plugin.Constant(registration),
		"plugin.reconfigure":         plugin.Constant(registration),
		"frontend_auth.identifier":   plugin.Constant(plugin.Identifier{Identifier: name}),
		"frontend_auth.authenticate": plugin.Constant(anybody),
	})
}

func main() {}
