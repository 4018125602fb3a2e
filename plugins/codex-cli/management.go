package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"cpa-codex-cli/internal/plugin"
)

const (
	sessionsPath = "/plugins/codex-cli/sessions"
	mutatePath   = sessionsPath + "/mutate"
	maxMutations = 10_000
	versionAge   = time.Minute // the page is open to everybody and must not start a program per look
	shownOnPage  = 50
)

// Version of the CLI, asked for when it is shown.
type Version struct {
	asking sync.Mutex
	asked  bool
	at     time.Time
	text   string
	err    error
}

type declared struct {
	Routes    []route           `json:"routes"`
	Resources []plugin.Resource `json:"resources"`
}

type route struct {
	Method, Path, Description string
}

var pages = declared{
	Routes: []route{
		{"GET", sessionsPath, "Conversations, with the calls of tools in them: ?thread_id= for one"},
		{"POST", mutatePath, "Take outputs of tools out of the agent's record of its sessions"},
	},
	Resources: []plugin.Resource{{Path: "/status", Menu: "Codex CLI", Description: "Sessions, models, version and last errors of the agent"}},
}

func (p *Plugin) manage(request plugin.PageRequest) (any, error) {
	switch {
	case request.Method == "POST" && strings.HasSuffix(request.Path, mutatePath):
		return p.mutate(request.Body)
	case strings.HasSuffix(request.Path, sessionsPath):
		return p.listSessions(plugin.First(request.Query, "thread_id"))
	case strings.HasSuffix(request.Path, "/status"):
		return p.page(), nil
	}
	return plugin.Text(404, "codex-cli: there is no such page"), nil
}

func answerJSON(status int, value any) (any, error) {
	body, err := json.Marshal(value)
	return plugin.Response{StatusCode: status, Headers: plugin.Header{"Content-Type": {"application/json"}}, Body: body}, err
}

func complaint(status int, code, format string, values ...any) (any, error) {
	return answerJSON(status, map[string]string{"error": code, "message": fmt.Sprintf(format, values...)})
}

// mutate is POST …/sessions/mutate.
func (p *Plugin) mutate(body []byte) (any, error) {
	var asked struct {
		Workspace string     `json:"workspace"`
		Mutations []Mutation `json:"mutations"`
	}
	if err := json.Unmarshal(body, &asked); err != nil {
		return complaint(400, "invalid_body", "expected {workspace, mutations: [{block_id, op}]}: %s", err)
	}
	if len(asked.Mutations) > maxMutations {
		return complaint(400, "invalid_body", "mutations: expected at most %d, got %d", maxMutations, len(asked.Mutations))
	}
	ops := map[string]string{}
	for i, mutation := range asked.Mutations {
		if mutation.BlockID == "" {
			return complaint(400, "invalid_body", "mutations[%d].block_id: expected the id of a call, got nothing", i)
		}
		if ops[mutation.BlockID] != heavy {
			ops[mutation.BlockID] = mutation.Op
		}
	}
	settings := p.current()
	workspace := settings.Workspace
	if asked.Workspace != "" {
		var err error
		if workspace, err = workspacePath(asked.Workspace); err != nil {
			return complaint(400, "invalid_body", "%s", err)
		}
	}
	touched, known, failed := p.mutateWorkspace(workspace, ops)
	switch {
	case failed != nil && failed.busy:
		return complaint(409, "busy", "a turn is running on thread %s: try again when it has ended", failed.thread)
	case failed != nil:
		return complaint(500, "mutation_failed", "%s", failed.err)
	case !known && workspace != settings.Workspace:
		return complaint(404, "unknown_workspace", "workspace: expected one that sessions were in, such as %s, got %s", settings.Workspace, workspace)
	}
	return answerJSON(200, map[string]int{"asked": len(ops), "requested": len(ops), "touched": len(touched)})
}

type notMutated struct {
	busy   bool
	thread string
	err    error
}

// mutateWorkspace changes the records of all threads of a workspace: of those that we know, and then, for what was not
// in them, of those that say so themselves. Returns the ids that were found, and whether there was any thread.
func (p *Plugin) mutateWorkspace(workspace string, ops map[string]string) (map[string]bool, bool, *notMutated) {
	sessions := p.sessionsOf(workspace)
	touched, seen := map[string]bool{}, map[string]bool{}
	change := func(path string) error {
		ids, err := mutateRollout(path, ops)
		for id := range ids {
			touched[id] = true
		}
		return err
	}
	for _, session := range sessions.list() {
		path := rolloutPath(session.Thread)
		if path == "" {
			continue
		}
		seen[path] = true
		holder := &Turn{attached: true} // nobody may go on with it meanwhile
		known := sessions.get(session.Thread)
		if known == nil || !sessions.claim(known, holder) {
			if mentioned, _ := mentions(path, ops); mentioned {
				return nil, true, &notMutated{busy: true, thread: session.Thread}
			}
			continue
		}
		err := change(path)
		events, _, unread := readRollout(session.Thread)
		sessions.release(known, func(s *Session) {
			if unread == nil {
				s.events = events
			}
		})
		if err != nil {
			return nil, true, &notMutated{err: err}
		}
	}
	if len(touched) < len(ops) {
		for _, path := range rollouts("rollout-*.jsonl") {
			if seen[path] || !rolloutOf(path, workspace) {
				continue
			}
			seen[path] = true
			if err := change(path); err != nil {
				return nil, true, &notMutated{err: err}
			}
		}
	}
	return touched, len(seen) > 0, nil
}

// listSessions is GET …/sessions.
func (p *Plugin) listSessions(thread string) (any, error) {
	type entry struct {
		Thread    string      `json:"thread_id"`
		Workspace string      `json:"workspace"`
		Model     string      `json:"model"`
		Turns     int         `json:"turns"`
		Used      time.Time   `json:"used"`
		Running   bool        `json:"running"`
		Problem   string      `json:"problem,omitempty"`
		Events    []ToolEvent `json:"events"`
	}
	entries := []entry{}
	settings := p.current()
	for _, session := range p.sessionsOf(settings.Workspace).list() {
		if thread != "" && thread != session.Thread {
			continue
		}
		events := session.events
		if events == nil || thread != "" {
			events, _, _ = readRollout(session.Thread)
		}
		if events == nil {
			events = []ToolEvent{}
		}
		entries = append(entries, entry{session.Thread, session.Workspace, session.Model, session.Turns, session.Used,
			session.busy != nil, session.Problem, events})
		if thread == "" && len(entries) == shownOnPage {
			break
		}
	}
	return answerJSON(200, map[string]any{"agent_id": agentID(settings.Workspace), "sessions": entries})
}

// usage counts what the host tells of this provider.
func (p *Plugin) usage(record struct {
	Provider string
	Failed   bool
	Detail   struct{ InputTokens, OutputTokens int64 }
}) (any, error) {
	if record.Provider == provider {
		p.mutex.Lock()
		defer p.mutex.Unlock()
		p.tokens.Requests++
		if record.Failed {
			p.tokens.Failed++
		}
		p.tokens.Input += record.Detail.InputTokens
		p.tokens.Output += record.Detail.OutputTokens
	}
	return nil, nil
}

func (p *Plugin) cliVersion(settings Settings) (string, error) {
	p.version.asking.Lock()
	defer p.version.asking.Unlock()
	p.mutex.Lock()
	known := p.version.asked && time.Since(p.version.at) < versionAge
	text, err := p.version.text, p.version.err
	p.mutex.Unlock()
	if known {
		return text, err
	}
	text, err = cliVersion(settings)
	p.mutex.Lock()
	p.version.asked, p.version.at, p.version.text, p.version.err = true, time.Now(), text, err
	p.mutex.Unlock()
	return text, err
}

// page is for browsers, without key: no prompts, no answers, no paths of the machine but the workspace's.
func (p *Plugin) page() plugin.Response {
	settings := p.current()
	found, err := p.cliVersion(settings)
	state := "ready"
	if err != nil {
		state, found = "not available: "+bare(err).Error(), "unknown"
	}
	p.mutex.Lock()
	running, tokens, garbage := p.running, p.tokens, p.garbage
	problems := append([]Problem(nil), p.problems...)
	p.mutex.Unlock()
	page := plugin.Page{Title: "Codex CLI", Rows: [][2]string{
		{"state", state},
		{"CLI version", found},
		{"binary", settings.Binary},
		{"workspace", settings.Workspace},
		{"turns running", fmt.Sprintf("%d of %d", running, settings.Turns)},
		{"requests", fmt.Sprintf("%d, %d failed", tokens.Requests, tokens.Failed)},
		{"tokens", fmt.Sprintf("%d in, %d out", tokens.Input, tokens.Output)},
		{"lines of output that were no events", strconv.Itoa(garbage)},
	}}
	var models, sessions, errors []string
	for _, id := range settings.Models {
		value := settings.cliModel(id)
		if value == "" {
			value = "whatever the CLI's account uses"
		}
		models = append(models, id+" → "+value)
	}
	for i, session := range p.sessionsOf(settings.Workspace).list() {
		if i == shownOnPage {
			sessions = append(sessions, "…")
			break
		}
		line := fmt.Sprintf("%s · %s · %d turns · %s", session.Thread, session.Model, session.Turns, session.Used.UTC().Format(time.RFC3339))
		if session.busy != nil {
			line += " · running"
		}
		if len(session.events) > 0 {
			line += fmt.Sprintf(" · %d calls and outputs of tools", len(session.events))
		}
		sessions = append(sessions, line)
	}
	for i := len(problems) - 1; i >= 0; i-- {
		errors = append(errors, problems[i].At.UTC().Format(time.RFC3339)+" "+shortened(problems[i].Text, 500))
	}
	page.Sections = []plugin.Section{
		{Heading: "Models", List: models},
		{Heading: "Sessions", List: sessions},
		{Heading: "Last errors", List: errors},
	}
	return plugin.HTML(200, page.HTML())
}
