package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"cpa-codex-cli/internal/plugin"
)

const (
	shortRun       = 20 * time.Second // for runs that only ask or register something
	maxShortOutput = 1 << 20
)

// usual variables that a program needs to run and to find its log-in; everything else of the proxy's environment may be
// a secret of somebody else's.
var usual = map[string]bool{
	"HOME": true, "PATH": true, "USER": true, "LOGNAME": true, "SHELL": true, "LANG": true, "LANGUAGE": true,
	"TZ": true, "TMPDIR": true, "TERM": true, "NO_COLOR": true,
	"XDG_CONFIG_HOME": true, "XDG_DATA_HOME": true, "XDG_CACHE_HOME": true, "XDG_STATE_HOME": true, "XDG_RUNTIME_DIR": true,
	"SSL_CERT_FILE": true, "SSL_CERT_DIR": true, "NODE_EXTRA_CA_CERTS": true,
	"HTTP_PROXY": true, "HTTPS_PROXY": true, "ALL_PROXY": true, "NO_PROXY": true,
	"http_proxy": true, "https_proxy": true, "all_proxy": true, "no_proxy": true,
	"RUST_LOG":       true,
	"OPENAI_API_KEY": true, "OPENAI_BASE_URL": true, "OPENAI_ORGANIZATION": true, "OPENAI_PROJECT": true,
}

// never is what no setting of the CLI hands to an agent.
var never = map[string]bool{"MANAGEMENT_PASSWORD": true}

var envKey = regexp.MustCompile(`(?m)^\s*env_key\s*=\s*["']([A-Za-z_][A-Za-z0-9_]*)["']`)

// environment is all that the CLI sees: the usual variables, those that its own configuration names as where its key
// is (env_key of a model provider), and those that the operator names.
func environment(settings Settings) []string {
	wanted := map[string]bool{}
	if text, err := readLimited(filepath.Join(codexHome(), "config.toml"), 4<<20); err == nil {
		for _, found := range envKey.FindAllSubmatch(text, 64) {
			wanted[string(found[1])] = true
		}
	}
	for _, name := range settings.PassEnv {
		wanted[name] = true
	}
	var kept []string
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		if !never[name] && (usual[name] || wanted[name] || strings.HasPrefix(name, "LC_") ||
			strings.HasPrefix(name, "CODEX_")) {
			kept = append(kept, variable)
		}
	}
	return kept
}

func readLimited(path string, limit int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(text)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return text, err
}

// codexHome is where the CLI keeps its configuration and its sessions.
func codexHome() string {
	if home := os.Getenv("CODEX_HOME"); home != "" {
		return home
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ".codex"
	}
	return filepath.Join(home, ".codex")
}

// findCLI is the program's path, or why there is none: an error with status 503.
func findCLI(settings Settings) (string, error) {
	name := settings.Binary
	if home, err := os.UserHomeDir(); err == nil && strings.HasPrefix(name, "~/") {
		name = filepath.Join(home, name[2:])
	}
	path, err := exec.LookPath(name)
	if err == nil || errors.Is(err, exec.ErrDot) {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		reason := err.Error()
		var lookup *exec.Error
		if errors.As(err, &lookup) {
			reason = lookup.Err.Error()
		}
		return "", &plugin.Error{
			Code:       "cli_not_found",
			HTTPStatus: 503,
			Message: fmt.Sprintf("codex-cli: the agent's program %q cannot be run: %s; install it (npm package @openai/codex) "+
				"or set `binary`", settings.Binary, reason),
		}
	}
	return path, nil
}

// workspaceReady makes the workspace where it is missing.
func workspaceReady(settings Settings) error {
	if err := os.MkdirAll(settings.Workspace, 0o700); err != nil {
		return &plugin.Error{Code: "workspace", HTTPStatus: 503, Message: "codex-cli: workspace: " + err.Error()}
	}
	return nil
}

// runShort runs the CLI for something that is no turn, and returns what it wrote to its standard output.
func runShort(settings Settings, arguments ...string) ([]byte, error) {
	path, err := findCLI(settings)
	if err != nil {
		return nil, err
	}
	process, err := start(Command{Path: path, Args: arguments, Env: environment(settings), Dir: "/"})
	if err != nil {
		return nil, err
	}
	process.Stdin.Close()
	late, cancel := context.WithTimeout(context.Background(), shortRun)
	defer cancel()
	stop := context.AfterFunc(late, process.End)
	defer stop()
	told := make(chan []byte, 1)
	go func() {
		text, _ := io.ReadAll(io.LimitReader(process.Stderr, maxShortOutput))
		told <- text
	}()
	output, _ := io.ReadAll(io.LimitReader(process.Stdout, maxShortOutput))
	exit := process.Exited()
	process.End()
	complaint := <-told
	process.Wait()
	if late.Err() != nil {
		return nil, fmt.Errorf("%s %s: no end within %s", settings.Binary, arguments[0], shortRun)
	}
	if exit.Err != nil || exit.Signal != 0 || exit.Code != 0 {
		return nil, fmt.Errorf("%s %s: %s: %s", settings.Binary, strings.Join(arguments[:min(2, len(arguments))], " "), exit, tail(complaint))
	}
	return output, nil
}

// cliVersion asks the CLI; the first line of its answer.
func cliVersion(settings Settings) (string, error) {
	output, err := runShort(settings, "--version")
	if err != nil {
		return "", err
	}
	line, _, _ := bufio.NewReader(bytes.NewReader(output)).ReadLine()
	return string(line[:min(len(line), 100)]), nil
}

// turnArguments are those of one turn. The prompt is not among them: it goes to the standard input.
func turnArguments(settings Settings, ask Ask, thread string, images []string, schema string, mcp []string) []string {
	arguments := []string{"exec", "--json", "--skip-git-repo-check"}
	arguments = append(arguments, settings.ExtraArgs...)
	for _, image := range images {
		arguments = append(arguments, "--image="+image)
	}
	if schema != "" {
		arguments = append(arguments, "--output-schema", schema)
	}
	if model := settings.cliModel(ask.Model); model != "" {
		arguments = append(arguments, "--model", model)
	}
	if ask.Effort != "" {
		arguments = append(arguments, "-c", fmt.Sprintf("model_reasoning_effort=%q", ask.Effort))
	}
	arguments = append(arguments, mcp...)
	if thread != "" {
		arguments = append(arguments, "resume", thread)
	}
	return append(arguments, "-")
}

var secret = regexp.MustCompile(`(?i)\b(sk|sess|key|ghp|xox[abp])-[A-Za-z0-9_\-]{8,}|\bBearer\s+\S+|\beyJ[A-Za-z0-9_\-]{8,}(\.[A-Za-z0-9_\-]+)*|://[^/\s:@]+:[^/\s@]+@`)

const maxTail = 2048

// tail is the end of what a program complained about, for errors: printable, without what looks like a secret.
func tail(text []byte) string {
	clean := strings.Map(func(char rune) rune {
		if char == '\n' || char == '\t' || char >= ' ' && char != 0x7f {
			return char
		}
		return -1
	}, strings.ToValidUTF8(string(text), "\ufffd"))
	clean = strings.TrimSpace(secret.ReplaceAllString(clean, "[masked]"))
	if len(clean) > maxTail {
		clean = strings.ToValidUTF8(clean[len(clean)-maxTail:], "")
	}
	return clean
}
