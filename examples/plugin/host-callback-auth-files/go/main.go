// A plugin with a page that shows the host's credential files and saves them: host.auth.list, host.auth.get,
// host.auth.get_runtime and host.auth.save.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	plugin "cpa-examples/lib/go"
)

const (
	title = "Host Auth Files"

	// Not from net/http, which would be three quarters of the library.
	ok         = 200
	badRequest = 400
)

var registration = plugin.Registration{
	SchemaVersion: 3,
	Metadata: plugin.Metadata{
		Name:             "host-callback-auth-files",
		Version:          "0.1.0",
		Author:           "router-for-me",
		GitHubRepository: "https://github.com/router-for-me/CLIProxyAPI",
		Logo:             "https://raw.githubusercontent.com/router-for-me/CLIProxyAPI/main/docs/logo.png",
		ConfigFields:     []plugin.ConfigField{},
	},
	Capabilities: plugin.Capabilities{ManagementAPI: true},
}

var pages = plugin.Pages{Resources: []plugin.Resource{{
	Path:        "/status",
	Menu:        title,
	Description: "Shows and saves credential files: /v0/resource/plugins/host-callback-auth-files/status",
}}}

var usage = []string{
	"?op=list",
	"?op=get&auth_index=<auth_index>",
	"?op=runtime&auth_index=<auth_index>",
	`?op=save&name=<file>.json&json={"type":"<provider>"}`,
}

// wish is what the caller wants: members of a JSON body (management routes; resources have none), then the query.
type wish struct {
	Op        string
	AuthIndex string
	Name      string
	JSON      json.RawMessage
}

func readWish(ask plugin.PageRequest) (wish, error) {
	var want wish
	if len(ask.Body) > 0 {
		if err := json.Unmarshal(ask.Body, &want); err != nil {
			return want, fmt.Errorf("request body must be valid JSON: %w", err)
		}
	}
	for name, field := range map[string]*string{"op": &want.Op, "auth_index": &want.AuthIndex, "name": &want.Name} {
		if value := plugin.First(ask.Query, name); value != "" {
			*field = value
		}
		*field = strings.TrimSpace(*field)
	}
	if text := plugin.First(ask.Query, "json"); text != "" {
		if !json.Valid([]byte(text)) {
			return want, errors.New("query json must be valid JSON")
		}
		want.JSON = json.RawMessage(text)
	}
	if want.Op = strings.ToLower(want.Op); want.Op == "" {
		want.Op = "list"
	}
	return want, nil
}

// carryOut asks the host and gives back its answer as it is.
func (want wish) carryOut() (answer json.RawMessage, err error) {
	method, request := "", map[string]any{}
	switch want.Op {
	case "list":
		method = "host.auth.list"
	case "get", "runtime", "get_runtime":
		method = "host.auth.get"
		op := "get"
		if want.Op != "get" {
			method, op = "host.auth.get_runtime", "runtime"
		}
		if want.AuthIndex == "" {
			return nil, fmt.Errorf("auth_index is required for op=%s", op)
		}
		request["auth_index"] = want.AuthIndex
	case "save":
		method = "host.auth.save"
		if want.Name == "" {
			return nil, errors.New("name is required for op=save")
		}
		if len(want.JSON) == 0 || string(want.JSON) == "null" {
			return nil, errors.New("json is required for op=save")
		}
		request["name"], request["json"] = want.Name, want.JSON
	default:
		return nil, fmt.Errorf("unknown op %q: use list, get, runtime, or save", want.Op)
	}
	err = plugin.CallHost(method, request, &answer)
	return answer, err
}

// handle shows how it went; failures of the host are part of the page.
func handle(ask plugin.PageRequest) (any, error) {
	want, err := readWish(ask)
	if err != nil {
		return plugin.Text(badRequest, err.Error()+"\n"), nil
	}
	page := plugin.Page{Title: title, Rows: [][2]string{{"op", want.Op}}}
	for _, row := range [][2]string{{"auth_index", want.AuthIndex}, {"name", want.Name}} {
		if row[1] != "" {
			page.Rows = append(page.Rows, row)
		}
	}
	if answer, err := want.carryOut(); err != nil {
		page.Sections = append(page.Sections, plugin.Section{Heading: "Error", Class: "error", Text: err.Error()})
	} else {
		page.Sections = append(page.Sections, plugin.Section{Heading: "Result", Text: plugin.Indented(answer)})
	}
	page.Sections = append(page.Sections, plugin.Section{Heading: "Usage", List: usage})
	return plugin.HTML(ok, page.HTML()), nil
}

func init() {
	plugin.Serve(plugin.Methods{
		"plugin.register":     plugin.Constant(registration),
		"plugin.reconfigure":  plugin.Constant(registration),
		"management.register": plugin.Constant(pages),
		"management.handle":   plugin.Reading(handle),
	})
}

func main() {}
