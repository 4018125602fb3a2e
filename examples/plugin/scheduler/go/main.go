// A scheduler that its settings decide for: a certain credential, one of the host's own strategies, or none at all.
package main

import (
	"strings"
	"sync/atomic"

	plugin "cpa-examples/lib/go"
)

var registration = plugin.Registration{
	SchemaVersion: 3,
	Metadata: plugin.Metadata{
		Name:             "scheduler",
		Version:          "0.1.0",
		Author:           "router-for-me",
		GitHubRepository: "https://github.com/router-for-me/CLIProxyAPI",
		Logo:             "https://raw.githubusercontent.com/router-for-me/CLIProxyAPI/main/docs/logo.png",
		ConfigFields: []plugin.ConfigField{
			{Name: "auth_id", Type: "string", EnumValues: []string{}, Description: "Selects this credential, if it is a candidate."},
			{Name: "delegate", Type: "enum", EnumValues: []string{"", "fill-first", "round-robin"},
				Description: "Lets this strategy of the host decide."},
			{Name: "deny", Type: "boolean", EnumValues: []string{}, Description: "Refuses every request."},
		},
	},
	Capabilities: plugin.Capabilities{Scheduler: true},
}

type configuration struct {
	authID   string
	delegate string
	deny     bool
}

// Settings may change while requests are on their way: each pick sees one whole configuration.
var current atomic.Pointer[configuration]

func register(request plugin.RegisterRequest) (any, error) {
	settings, err := plugin.ReadSettings(request.ConfigYAML)
	if err != nil {
		return nil, err
	}
	var wanted configuration
	if wanted.authID, err = settings.Text("auth_id", ""); err != nil {
		return nil, err
	}
	if wanted.delegate, err = settings.Text("delegate", ""); err != nil {
		return nil, err
	}
	if wanted.deny, err = settings.Flag("deny", false); err != nil {
		return nil, err
	}
	wanted.authID, wanted.delegate = strings.TrimSpace(wanted.authID), strings.TrimSpace(wanted.delegate)
	current.Store(&wanted)
	return registration, nil
}

type pickRequest struct {
	Candidates []struct{ ID string }
}

type pick struct {
	AuthID          string
	DelegateBuiltin string
	Handled         bool
}

func choose(request pickRequest) (any, error) {
	wanted := current.Load()
	switch {
	case wanted == nil: // not registered yet
		return pick{}, nil
	case wanted.deny:
		return nil, &plugin.Error{Code: "scheduler_denied", Message: "scheduler pick denied by plugin configuration"}
	case wanted.delegate == "fill-first" || wanted.delegate == "round-robin":
		return pick{DelegateBuiltin: wanted.delegate, Handled: true}, nil
	case wanted.delegate != "" || wanted.authID == "":
		return pick{}, nil
	}
	for _, candidate := range request.Candidates {
		if candidate.ID == wanted.authID {
			return pick{AuthID: candidate.ID, Handled: true}, nil
		}
	}
	return pick{}, nil
}

func init() {
	plugin.Serve(plugin.Methods{
		"plugin.register":    plugin.Reading(register),
		"plugin.reconfigure": plugin.Reading(register),
		"scheduler.pick":     plugin.Reading(choose),
	})
}

func main() {}
