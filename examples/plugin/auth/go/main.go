// A credential provider: takes over files of its type; signing in succeeds at once.
package main

import (
	"time"

	plugin "cpa-examples/lib/go"
)

const name = "example-auth-go"

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
	Capabilities: plugin.Capabilities{AuthProvider: true},
}

var later = time.Date(2030, time.January, 1, 0, 0, 0, 0, time.UTC)

var auth = plugin.Auth{
	Provider:    name,
	ID:          name,
	FileName:    name + ".json",
	Label:       "Auth Example",
	StorageJSON: []byte(`{"type":"` + name + `","token":"example-token"}`),
	Metadata:    map[string]any{"type": name},
}

var started = plugin.LoginStarted{
	Provider:  name,
	URL:       "https://example.invalid/login",
	State:     "example-state",
	ExpiresAt: later,
}

func init() {
	plugin.Serve(plugin.Methods{
		"plugin.register":    plugin.Constant(registration),
		"plugin.reconfigure": plugin.Constant(registration),
		"auth.identifier":    plugin.Constant(plugin.Identifier{Identifier: name}),
		"auth.parse":         plugin.Constant(plugin.AuthParsed{Handled: true, Auth: auth}),
		"auth.login.start":   plugin.Constant(started),
		"auth.login.poll":    plugin.Constant(plugin.LoginPolled{Status: "success", Message: "example login complete", Auth: &auth}),
		"auth.refresh":       plugin.Constant(plugin.AuthRefreshed{Auth: auth, NextRefreshAfter: &later}),
	})
}

func main() {}
