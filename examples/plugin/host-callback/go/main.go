// A plugin that calls the host before it shows its page.
package main

import (
	"encoding/json"

	plugin "cpa-examples/lib/go"
)

const name = "example-host-callback-go"

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
	Menu:        "Host Callback",
	Description: "Host Callback example at /v0/resource/plugins/" + name + "/status",
}}}

var page = plugin.HTML(200, "<!doctype html><title>Host Callback</title><main>Host Callback resource</main>")

// handle shows the same page whatever the request is, and whatever came of the calls.
func handle(raw []byte) (any, error) {
	var request plugin.PageRequest
	_ = json.Unmarshal(raw, &request)
	_ = plugin.CallHost("host.log", map[string]any{
		"level":            "info",
		"message":          name + " host callback log",
		"fields":           map[string]string{"plugin": name},
		"host_callback_id": request.CallbackID,
	}, nil)
	_ = plugin.CallHost("host.http.do", map[string]any{
		"method":           "GET",
		"url":              "https://example.com",
		"headers":          plugin.Header{"User-Agent": {name}},
		"host_callback_id": request.CallbackID,
	}, nil)
	return page, nil
}

func init() {
	plugin.Serve(plugin.Methods{
		"plugin.register":     plugin.Constant(registration),
		"plugin.reconfigure":  plugin.Constant(registration),
		"management.register": plugin.Constant(pages),
		"management.handle":   handle,
	})
}

func main() {}
