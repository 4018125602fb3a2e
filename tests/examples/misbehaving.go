// A plugin whose handlers do what handlers should not: what the shared package makes of it.
package main

import (
	"errors"
	"fmt"

	plugin "cpa-examples/lib/go"
)

var registration = plugin.Registration{
	SchemaVersion: 3,
	Metadata: plugin.Metadata{
		Name: "misbehaving", Version: "1", Author: "tests", GitHubRepository: "none", ConfigFields: []plugin.ConfigField{},
	},
	Capabilities: plugin.Capabilities{
		RequestTranslator: true, RequestNormalizer: true, ResponseTranslator: true, ResponseBeforeTranslator: true,
		ResponseAfterTranslator: true, ManagementAPI: true, Scheduler: true,
	},
}

func panics([]byte) (any, error) {
	var nowhere map[string]int
	nowhere["here"] = 1
	return nil, nil
}

func fails([]byte) (any, error) { return nil, errors.New("that went wrong") }

// refuses in its own words, although they are wrapped.
func refuses([]byte) (any, error) {
	return nil, fmt.Errorf("while refusing: %w", &plugin.Error{Code: "no", Message: "not today", HTTPStatus: 418})
}

func cannotBeEncoded([]byte) (any, error) { return make(chan int), nil }

// page shows what the host says to a call that it does not know, and what to one that it does.
func page(plugin.PageRequest) (any, error) {
	var answer map[string]any
	unknown := plugin.CallHost("host.no.such", nil, &answer)
	known := plugin.CallHost("host.log", map[string]string{"message": "from a goroutine"}, nil)
	undecodable := plugin.CallHost("host.auth.list", struct{}{}, &[]string{})
	return plugin.Text(200, fmt.Sprintf("%v|%v|%v", unknown, known, undecodable)), nil
}

func init() {
	plugin.Serve(plugin.Methods{
		"plugin.register":           plugin.Constant(registration),
		"plugin.reconfigure":        plugin.Constant(registration),
		"request.translate":         panics,
		"request.normalize":         fails,
		"response.translate":        cannotBeEncoded,
		"response.normalize_before": plugin.Reading(func(request plugin.Body) (any, error) { return request, nil }),
		"response.normalize_after":  plugin.Constant(nil),
		"scheduler.pick":            refuses,
		"management.register":       plugin.Constant(plugin.Pages{}),
		"management.handle":         plugin.Reading(page),
	})
}

func main() {}
