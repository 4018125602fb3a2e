// Every integration point that shapes an exchange, each answered in the simplest way: a provider with one model, its
// credentials, client authentication, an executor, the five transforms, thinking, usage, a command, a page.
//
// It accepts every client: loading it opens the proxy to all who can reach it.
package main

import (
	"bytes"
	"encoding/json"
	"sync/atomic"
	"time"

	plugin "cpa-examples/lib/go"
)

const (
	provider  = "plugin-example"
	format    = "chat-completions"
	loginTime = 5 * time.Minute
)

var registration = plugin.Registration{
	SchemaVersion: 3,
	Metadata: plugin.Metadata{
		Name:             "example",
		Version:          "0.1.0",
		Author:           "router-for-me",
		GitHubRepository: "https://github.com/router-for-me/CLIProxyAPI",
		Logo:             "https://raw.githubusercontent.com/router-for-me/CLIProxyAPI/main/docs/logo.png",
		// Shown to operators; this plugin uses none of them.
		ConfigFields: []plugin.ConfigField{
			{Name: "config1", Type: "boolean", EnumValues: []string{}, Description: "Enables the example boolean option."},
			{Name: "config2", Type: "string", EnumValues: []string{}, Description: "Sets the example string option."},
			{Name: "config3", Type: "integer", EnumValues: []string{}, Description: "Sets the example integer option."},
			{Name: "mode", Type: "enum", EnumValues: []string{"safe", "fast"}, Description: "Selects the example mode."},
		},
	},
	Capabilities: plugin.Capabilities{
		ModelRegistrar:           true,
		ModelProvider:            true,
		AuthProvider:             true,
		FrontendAuthProvider:     true,
		Executor:                 true,
		ExecutorModelScope:       "both",
		ExecutorInputFormats:     []string{format},
		ExecutorOutputFormats:    []string{format},
		RequestTranslator:        true,
		RequestNormalizer:        true,
		ResponseTranslator:       true,
		ResponseBeforeTranslator: true,
		ResponseAfterTranslator:  true,
		ThinkingApplier:          true,
		UsagePlugin:              true,
		CommandLinePlugin:        true,
		ManagementAPI:            true,
	},
}

// ---- models and credentials ----

var models = plugin.Models{Provider: provider, Models: []plugin.Model{{
	ID:                         provider + "-model",
	Object:                     "model",
	OwnedBy:                    provider,
	DisplayName:                "Plugin Example Model",
	SupportedGenerationMethods: []string{"chat"},
	ContextLength:              8192,
	MaxCompletionTokens:        1024,
	UserDefined:                true,
}}}

// credential stores the very request that it came with.
func credential(request []byte) plugin.Auth {
	return plugin.Auth{
		Provider:    provider,
		ID:          provider,
		FileName:    provider + ".json",
		Label:       "Plugin Example",
		StorageJSON: request,
		Metadata:    map[string]any{"type": provider},
	}
}

func parseAuth(request []byte) (any, error) {
	return plugin.AuthParsed{Handled: true, Auth: credential(request)}, nil
}

func refreshAuth(request []byte) (any, error) {
	return plugin.AuthRefreshed{Auth: credential(request)}, nil
}

func startLogin([]byte) (any, error) {
	return plugin.LoginStarted{
		Provider:  provider,
		URL:       "https://example.invalid/plugin-login",
		State:     "example-state",
		ExpiresAt: time.Now().UTC().Add(loginTime),
	}, nil
}

// ---- bodies ----

// echo is a transform that changes nothing.
func echo(request plugin.Body) (any, error) { return request, nil }

type thinkingRequest struct {
	Body   []byte
	Config struct {
		Mode   string
		Budget int
		Level  string
	}
}

// applyThinking adds a member to the body, which is written anew, with sorted members.
func applyThinking(request thinkingRequest) (any, error) {
	members := map[string]any{}
	decoder := json.NewDecoder(bytes.NewReader(request.Body))
	decoder.UseNumber() // large numbers stay what they are
	if !json.Valid(request.Body) || decoder.Decode(&members) != nil || members == nil {
		members = map[string]any{} // what is no object counts as an empty one
	}
	members["plugin_example_thinking"] = map[string]any{
		"mode":   request.Config.Mode,
		"budget": request.Config.Budget,
		"level":  request.Config.Level,
	}
	body, err := json.Marshal(members)
	return plugin.Body{Body: body}, err
}

// ---- the rest ----

var counted atomic.Int64

func countUsage([]byte) (any, error) {
	counted.Add(1)
	return nil, nil
}

func init() {
	identifier := plugin.Constant(plugin.Identifier{Identifier: provider})
	plugin.Serve(plugin.Methods{
		"plugin.register":    plugin.Constant(registration),
		"plugin.reconfigure": plugin.Constant(registration),
		"model.register":     plugin.Constant(models),
		"model.static":       plugin.Constant(models),
		"model.for_auth":     plugin.Constant(models),
		"auth.identifier":    identifier,
		"auth.parse":         parseAuth,
		"auth.refresh":       refreshAuth,
		"auth.login.start":   startLogin,
		"auth.login.poll": plugin.Constant(plugin.LoginPolled{
			Status:  "error",
			Message: "example plugin has no interactive login",
		}),
		"frontend_auth.identifier":   identifier,
		"frontend_auth.authenticate": plugin.Constant(plugin.Client{Authenticated: true, Principal: provider}),
		"executor.identifier":        identifier,
		"executor.execute": plugin.Constant(plugin.Executed{
			Payload: []byte(`{"id":"plugin-example","object":"chat.completion"}`),
		}),
		"executor.execute_stream": plugin.Constant(plugin.Streamed{Chunks: []plugin.Chunk{{Payload: []byte(provider)}}}),
		"executor.count_tokens":   plugin.Constant(plugin.Executed{Payload: []byte(`{"total_tokens":0}`)}),
		"executor.http_request": plugin.Constant(plugin.Response{
			StatusCode: 200,
			Body:       []byte(`{"plugin":"example"}`),
		}),
		"request.translate":         plugin.Reading(echo),
		"request.normalize":         plugin.Reading(echo),
		"response.translate":        plugin.Reading(echo),
		"response.normalize_before": plugin.Reading(echo),
		"response.normalize_after":  plugin.Reading(echo),
		"thinking.identifier":       identifier,
		"thinking.apply":            plugin.Reading(applyThinking),
		"usage.handle":              countUsage,
		"command_line.register": plugin.Constant(plugin.Flags{Flags: []plugin.Flag{{
			Name:  "plugin-example-command",
			Usage: "Run the example C ABI plugin command",
			Type:  "bool",
		}}}),
		"command_line.execute": plugin.Constant(plugin.CommandDone{Stdout: []byte("plugin example command\n")}),
		"management.register": plugin.Constant(plugin.Pages{Resources: []plugin.Resource{{
			Path:        "/status",
			Menu:        "Example Plugin",
			Description: "Example Plugin at /v0/resource/plugins/example/status",
		}}}),
		"management.handle": plugin.Constant(plugin.HTML(200,
			"<!doctype html><title>Example Plugin</title><main>Example Plugin</main>")),
	})
}

func main() {}
