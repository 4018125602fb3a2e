package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"cpa-codex-cli/internal/plugin"
)

const (
	defaultBinary      = "codex"
	defaultModel       = "codex" // the one that means: without --model
	defaultTurnTimeout = 30 * time.Minute
	maxTurnTimeout     = 24 * time.Hour
	defaultTurns       = 4
	maxTurns           = 1000
)

// Settings of the plugin, as plugins.configs.codex-cli has them.
type Settings struct {
	Binary       string
	ExtraArgs    []string
	Models       []string
	ModelArgs    map[string]string
	Workspace    string // absolute
	TurnTimeout  time.Duration
	Turns        int // at once
	ShowCommands bool
	PassEnv      []string // names of further variables that the CLI sees
}

var configFields = []plugin.ConfigField{
	{Name: "binary", Type: "string", Description: "The agent's command line program: a name on the PATH or a path. Default: codex."},
	{Name: "extra_args", Type: "array", Description: "Further arguments of `codex exec`, a list of strings, such as [--sandbox, workspace-write]."},
	{Name: "supported_models", Type: "array", Description: "Model ids to offer instead of [codex]. `codex` means whatever the CLI's account uses."},
	{Name: "model_args", Type: "object", Description: "Maps a model id to the CLI's --model value; other ids are passed as they are."},
	{Name: "workspace", Type: "string", Description: "The folder in which the agent works. Default: a private one below the user's state folder."},
	{Name: "turn_timeout", Type: "number", Description: "Seconds that one turn may take, client tools included. Default: 1800."},
	{Name: "max_concurrent_turns", Type: "integer", Description: "Turns at once, those that wait for a client's tool included; further ones are refused with 429. Default: 4."},
	{Name: "show_commands", Type: "boolean", Description: "Show what the agent does (commands, changed files, searches) as text. Header X-Codex-Commands overrides it. Default: false."},
	{Name: "pass_env", Type: "array", Description: "Names of environment variables that the CLI gets beside the usual ones."},
}

// readSettings reads and checks config_yaml. An error names the setting, what was expected and what came.
func readSettings(yaml []byte) (Settings, error) {
	raw, err := plugin.ReadSettings(yaml)
	if err != nil {
		return Settings{}, err
	}
	var s Settings
	if s.Binary, err = raw.Text("binary", defaultBinary); err != nil {
		return s, err
	}
	if s.Binary = strings.TrimSpace(s.Binary); s.Binary == "" || strings.ContainsRune(s.Binary, 0) {
		return s, fmt.Errorf("binary: expected the name or path of a program, got %q", s.Binary)
	}
	if s.ExtraArgs, err = texts(raw, "extra_args", func(text string) bool { return text != "" }); err != nil {
		return s, err
	}
	if s.Models, err = texts(raw, "supported_models", isModel); err != nil {
		return s, err
	}
	if s.Models == nil {
		s.Models = []string{defaultModel}
	} else if len(s.Models) == 0 {
		return s, fmt.Errorf("supported_models: expected at least one model id, got an empty list")
	}
	if s.ModelArgs, err = raw.Map("model_args"); err != nil {
		return s, err
	}
	for id, value := range s.ModelArgs {
		if value != "" && !isModel(value) {
			return s, fmt.Errorf("model_args.%s: expected a value for --model, got %q", id, value)
		}
	}
	if s.PassEnv, err = texts(raw, "pass_env", isVariable); err != nil {
		return s, err
	}
	if s.ShowCommands, err = raw.Flag("show_commands", false); err != nil {
		return s, err
	}
	if s.Turns, err = raw.Integer("max_concurrent_turns", defaultTurns); err != nil {
		return s, err
	}
	if s.Turns < 1 || s.Turns > maxTurns {
		return s, fmt.Errorf("max_concurrent_turns: expected an integer from 1 to %d, got %d", maxTurns, s.Turns)
	}
	seconds, err := raw.Number("turn_timeout", defaultTurnTimeout.Seconds())
	if err != nil {
		return s, err
	}
	if seconds <= 0 || seconds > maxTurnTimeout.Seconds() {
		return s, fmt.Errorf("turn_timeout: expected seconds, more than 0 and at most %.0f, got %v", maxTurnTimeout.Seconds(), seconds)
	}
	s.TurnTimeout = time.Duration(seconds * float64(time.Second))
	workspace, err := raw.Text("workspace", "")
	if err != nil {
		return s, err
	}
	s.Workspace, err = workspacePath(workspace)
	return s, err
}

func texts(raw plugin.Settings, name string, good func(string) bool) ([]string, error) {
	found, err := raw.Texts(name)
	if err != nil {
		return nil, err
	}
	for i, text := range found {
		if strings.ContainsRune(text, 0) || !good(text) {
			return nil, fmt.Errorf("%s[%d]: expected %s, got %q", name, i, expected[name], text)
		}
	}
	return found, nil
}

var expected = map[string]string{
	"extra_args":       "an argument",
	"supported_models": "a model id without blanks that does not begin with '-'",
	"pass_env":         "the name of an environment variable",
}

// isModel is false for what the CLI would take for a flag, and for what no model is called.
func isModel(text string) bool {
	return text != "" && len(text) <= 256 && text[0] != '-' && !strings.ContainsAny(text, " \t\r\n\x00")
}

func isVariable(text string) bool {
	return text != "" && !strings.ContainsAny(text, "= \t\r\n\x00")
}

// workspacePath is absolute and has no symbolic links where it exists; it is made when it is first used.
func workspacePath(text string) (string, error) {
	if text = strings.TrimSpace(text); text == "" {
		return filepath.Join(stateFolder(), "workspace"), nil
	}
	if text == "~" || strings.HasPrefix(text, "~/") {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("workspace: expected a path, got %q and there is no home folder", text)
		}
		text = filepath.Join(home, text[1:])
	}
	path, err := filepath.Abs(text)
	if err != nil || strings.ContainsRune(text, 0) {
		return "", fmt.Errorf("workspace: expected a path, got %q", text)
	}
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		return "", fmt.Errorf("workspace: expected a folder, got the file %q", path)
	}
	return resolved(path), nil
}

// resolved is the path without symbolic links, as far as it exists.
func resolved(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	parent := filepath.Dir(path)
	if parent == path {
		return path
	}
	return filepath.Join(resolved(parent), filepath.Base(path))
}

// cliModel is what --model gets; empty means: without the flag.
func (s Settings) cliModel(id string) string {
	if value, mapped := s.ModelArgs[id]; mapped {
		return value
	}
	if id == defaultModel {
		return ""
	}
	return id
}
