// A request normalizer that moves Codex requests for one model to the priority service tier, when it is told to.
package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"sync/atomic"

	plugin "cpa-examples/lib/go"
)

const (
	format = "codex"
	model  = "gpt-5.5"
	member = "service_tier"
	tier   = `"priority"`
)

var registration = plugin.Registration{
	SchemaVersion: 3,
	Metadata: plugin.Metadata{
		Name:             "codex-service-tier",
		Version:          "0.1.0",
		Author:           "router-for-me",
		GitHubRepository: "https://github.com/router-for-me/CLIProxyAPI",
		Logo:             "https://raw.githubusercontent.com/router-for-me/CLIProxyAPI/main/docs/logo.png",
		ConfigFields: []plugin.ConfigField{{
			Name:        "fast",
			Type:        "boolean",
			EnumValues:  []string{},
			Description: "Sets service_tier to priority in Codex requests for gpt-5.5.",
		}},
	},
	Capabilities: plugin.Capabilities{RequestNormalizer: true},
}

// Settings may change while requests are on their way.
var fast atomic.Bool

func register(request plugin.RegisterRequest) (any, error) {
	settings, err := plugin.ReadSettings(request.ConfigYAML)
	if err != nil {
		return nil, err
	}
	wanted, err := settings.Flag("fast", false)
	if err != nil {
		return nil, err
	}
	fast.Store(wanted)
	return registration, nil
}

func normalize(request plugin.TransformRequest) (any, error) {
	body := request.Body
	if fast.Load() && strings.EqualFold(request.ToFormat, format) && request.Model == model {
		body = withTier(body)
	}
	return plugin.Body{Body: body}, nil
}

// withTier sets the member and leaves every other byte as it is; what is no JSON object stays as well.
func withTier(body []byte) []byte {
	if !json.Valid(body) {
		return body
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	if opening, err := decoder.Token(); err != nil || opening != json.Delim('{') {
		return body
	}
	var out []byte
	taken, found, members := 0, false, 0
	behind := int(decoder.InputOffset()) // the last member, or the brace
	for ; decoder.More(); members++ {
		key, err := decoder.Token()
		if err != nil {
			return body
		}
		var value json.RawMessage
		if decoder.Decode(&value) != nil {
			return body
		}
		behind = int(decoder.InputOffset())
		if key == member {
			out = append(append(out, body[taken:behind-len(value)]...), tier...)
			taken, found = behind, true
		}
	}
	if !found {
		taken = behind
		out = append(out, body[:taken]...)
		if members > 0 {
			out = append(out, ',')
		}
		out = append(out, `"`+member+`":`+tier...)
	}
	return append(out, body[taken:]...)
}

func init() {
	plugin.Serve(plugin.Methods{
		"plugin.register":    plugin.Reading(register),
		"plugin.reconfigure": plugin.Reading(register),
		"request.normalize":  plugin.Reading(normalize),
	})
}

func main() {}
