// @NAME@: a plugin for CPA, in Go. README.md says how to build and run it.
package main

import (
@IMPORTS@

	"cpaplugin/plugin"
)

const (
	name     = "@NAME@"
	provider = "@PROVIDER@" // in lower case, as the host compares them
)

@HANDLERS@
// ---- what the host learns of this plugin: change all of it but the capabilities ----

const capabilities = `{
@CAPABILITIES@
}`

func pluginRegister(plugin.RegisterRequest) (any, error) {
	return map[string]any{
		"schema_version": 3,
		"metadata": plugin.Metadata{
			Name:             name,
			Version:          "0.1.0",
			Author:           "you",
			GitHubRepository: "https://example.org/" + name,
		},
		"capabilities": json.RawMessage(capabilities),
	}, nil
}

func init() {
	plugin.Serve(plugin.Methods{
@ROUTES@
	})
}

func main() {}
