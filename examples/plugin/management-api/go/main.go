// A plugin with a page in the browser.
package main

import plugin "cpa-examples/lib/go"

const name = "example-management-api-go"

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
	Capabilities: plugin.Capabilities{ManagementAPI: true},
}

var pages = plugin.Pages{Resources: []plugin.Resource{{
	Path:        "/status",
	Menu:        "Management API",
	Description: "Management API example at /v0/resource/plugins/" + name + "/status",
}}}

var page = plugin.HTML(200, "<!doctype html><title>Management API</title><main>Management API resource</main>")

func init() {
	plugin.Serve(plugin.Methods{
		"plugin.register":     plugin.Constant(registration),
		"plugin.reconfigure":  plugin.Constant(registration),
		"management.register": plugin.Constant(pages),
		"management.handle":   plugin.Constant(page),
	})
}

func main() {}
