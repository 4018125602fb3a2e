// A plugin that takes the place of API keys: only requests with one header value are served.
package main

import (
	"encoding/json"
	"strings"

	plugin "cpa-examples/lib/go"
)

const name = "example-frontend-auth-exclusive-go"

var registration = plugin.Registration{
	SchemaVersion: 3,
	Metadata: plugin.Metadata{
		Name:             name,
		Version:          "0.1.0",
		Author:           "router-for-me",
		GitHubRepository: "https://github.com/router-for-me/CLIProxyAPI",
		Logo:             "https://example.invalid/" + name + ".png",
		ConfigFields:     []plugin.ConfigField{},
	},
	Capabilities: plugin.Capabilities{FrontendAuthProvider: true, FrontendAuthProviderExclusive: true},
}

// authenticate lets nobody in whose request cannot be read.
func authenticate(raw []byte) (any, error) {
	var request struct{ Headers plugin.Header }
	if json.Unmarshal(raw, &request) != nil || !mayEnter(request.Headers) {
		return plugin.Client{}, nil
	}
	return plugin.Client{
		Authenticated: true,
		Principal:     name,
		Metadata:      map[string]string{"mode": "exclusive", "provider": name},
	}, nil
}

// mayEnter wants the value under every spelling of the name that there is.
func mayEnter(headers plugin.Header) bool {
	found := false
	for header, values := range headers {
		if strings.EqualFold(header, "X-Example-Frontend-Auth") {
			if len(values) == 0 || values[0] != "exclusive" {
				return false
			}
			found = true
		}
	}
	return found
}

func init() {
	plugin.Serve(plugin.Methods{
		"plugin.register":            plugin.Constant(registration),
		"plugin.reconfigure":         plugin.Constant(registration),
		"frontend_auth.identifier":   plugin.Constant(plugin.Identifier{Identifier: name}),
		"frontend_auth.authenticate": authenticate,
	})
}

func main() {}
