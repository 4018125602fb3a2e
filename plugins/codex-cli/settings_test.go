package main

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestSettings(t *testing.T) {
	folder := t.TempDir()
	found, err := readSettings([]byte("enabled: true\npriority: 3\nbinary: /opt/codex\nextra_args: [-s, read-only]\n" +
		"supported_models:\n    - codex\n    - gpt-5\nmodel_args:\n    gpt-5: gpt-5-mini\nworkspace: " + folder +
		"/new\nturn_timeout: 1.5\nmax_concurrent_turns: 2\nshow_commands: yes\npass_env: [A]\n"))
	expected := Settings{
		Binary: "/opt/codex", ExtraArgs: []string{"-s", "read-only"}, Models: []string{"codex", "gpt-5"},
		ModelArgs: map[string]string{"gpt-5": "gpt-5-mini"}, Workspace: resolved(folder) + "/new",
		TurnTimeout: 1500 * time.Millisecond, Turns: 2, ShowCommands: true, PassEnv: []string{"A"},
	}
	if err != nil || !reflect.DeepEqual(found, expected) {
		t.Errorf("%+v %v", found, err)
	}
	for id, value := range map[string]string{"codex": "", "gpt-5": "gpt-5-mini", "o3": "o3"} {
		if found.cliModel(id) != value {
			t.Errorf("%s: %s", id, found.cliModel(id))
		}
	}
}

func TestBadSettingsAreNamed(t *testing.T) {
	for text, expected := range map[string]string{
		"turn_timeout: soon":         `turn_timeout: expected a number, got "soon"`,
		"turn_timeout: -1":           `turn_timeout: expected seconds, more than 0 and at most 86400, got -1`,
		"max_concurrent_turns: 0":    `max_concurrent_turns: expected an integer from 1 to 1000, got 0`,
		"max_concurrent_turns: many": `max_concurrent_turns: expected an integer, got "many"`,
		"supported_models: codex":    `supported_models: expected a list of strings, got "codex"`,
		"supported_models: []":       `supported_models: expected at least one model id, got an empty list`,
		"supported_models: [a b]":    `supported_models[0]: expected a model id without blanks`,
		"extra_args: [a, [b]]":       `extra_args[1]: expected a string, got a list`,
		"model_args: [a]":            `model_args: expected a mapping of strings to strings, got a list`,
		"model_args: {a: --yolo}":    `model_args.a: expected a value for --model, got "--yolo"`,
		"binary: {a: b}":             `binary: expected a string, got a list or a mapping`,
		"binary: ''":                 `binary: expected the name or path of a program, got ""`,
		"workspace: /dev/null":       `workspace: expected a folder, got the file "/dev/null"`,
		"pass_env: [A=b]":            `pass_env[0]: expected the name of an environment variable, got "A=b"`,
		"show_commands: perhaps":     `show_commands: expected a boolean, got "perhaps"`,
	} {
		if _, err := readSettings([]byte(text)); err == nil || !strings.Contains(err.Error(), expected) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestAgentsHaveNamesThatFitEverywhere(t *testing.T) {
	for path, expected := range map[string]string{
		"/srv/My Agent":                       "my-agent-",
		"/":                                   "",
		"/ü/":                                 "",
		"/" + strings.Repeat("long-name", 40): "long-namelong-namelong-n-",
		"/a.b/..x":                            "x-",
	} {
		found := agentID(path)
		if !strings.HasPrefix(found, expected) || !threadID.MatchString(found) || len(found) > 40 {
			t.Errorf("%s: %s", path, found)
		}
	}
	if agentID("/a/work") == agentID("/b/work") {
		t.Error("two agents of one name")
	}
}
