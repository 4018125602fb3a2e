// codex-cli is a provider that runs a local command-line agent, `codex exec`: one turn of the agent for each request.
// The agent is the user's own, with its own log-in; the plugin holds no key and never reads the agent's.
//
// Standard library only. README.md says how it is built and set up, docs/codex-cli.md of CPA what it does.
package main

import (
	"errors"
	"path/filepath"
	"sync"
	"time"

	"cpa-codex-cli/internal/plugin"
)

const (
	provider = "codex-cli"
	version  = "0.1.0"
	keptNote = 20 // last errors, for the page
)

// Plugin is the whole of it: what calls of the host share.
type Plugin struct {
	mutex    sync.Mutex
	settings Settings
	ready    bool
	running  int                  // turns that hold a place
	sessions map[string]*Sessions // by workspace
	bridges  map[string]*Bridge   // by agent
	parked   map[string]*Turn     // by the ids of calls that clients were shown
	problems []Problem
	garbage  int
	tokens   Tokens
	version  Version

	turnsMutex sync.Mutex
	turns      map[*Turn]bool

	registering sync.Mutex
	registered  map[string]bool // agents that know our MCP server
}

// Problem is a failure as the page shows it.
type Problem struct {
	At   time.Time `json:"at"`
	Text string    `json:"text"`
}

// Tokens are what usage.handle told of this provider.
type Tokens struct {
	Requests int   `json:"requests"`
	Failed   int   `json:"failed"`
	Input    int64 `json:"input_tokens"`
	Output   int64 `json:"output_tokens"`
}

var codex = &Plugin{
	sessions:   map[string]*Sessions{},
	bridges:    map[string]*Bridge{},
	parked:     map[string]*Turn{},
	turns:      map[*Turn]bool{},
	registered: map[string]bool{},
}

func (p *Plugin) configure(request plugin.RegisterRequest) (any, error) {
	takeEnvironment()
	settings, err := readSettings(request.ConfigYAML)
	if err != nil {
		return nil, &plugin.Error{Code: "invalid_config", Message: "codex-cli: " + err.Error()}
	}
	p.mutex.Lock()
	p.settings, p.ready = settings, true
	p.version.asked = false // another program may be meant
	p.mutex.Unlock()
	formats := []string{"chat-completions"}
	return plugin.Registration{
		SchemaVersion: 3,
		Metadata: plugin.Metadata{
			Name: provider, Version: version, Author: "CPA", GitHubRepository: "https://example.invalid/cpa/codex-cli",
			ConfigFields: configFields,
		},
		Capabilities: plugin.Capabilities{
			ModelProvider: true, Executor: true, UsagePlugin: true, ManagementAPI: true,
			ExecutorModelScope: "both", ExecutorInputFormats: formats, ExecutorOutputFormats: formats,
		},
	}, nil
}

func (p *Plugin) models([]byte) (any, error) {
	settings := p.current()
	listed := make([]plugin.Model, len(settings.Models))
	for i, id := range settings.Models {
		listed[i] = plugin.Model{
			ID: id, Object: "model", OwnedBy: provider, DisplayName: "Codex CLI: " + id,
			SupportedGenerationMethods: []string{"chat"}, UserDefined: true,
		}
	}
	return plugin.Models{Provider: provider, Models: listed}, nil
}

// current settings; those without configuration before the first registration.
func (p *Plugin) current() Settings {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if !p.ready {
		p.settings, _ = readSettings(nil)
		p.ready = true
	}
	return p.settings
}

func (p *Plugin) enter(settings Settings) bool {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.running >= settings.Turns {
		return false
	}
	p.running++
	return true
}

// stale is the turn that has waited the longest for a client's tool, and too long to keep others out; nil where none has.
func (p *Plugin) stale(now time.Time) *Turn {
	p.turnsMutex.Lock()
	defer p.turnsMutex.Unlock()
	var oldest *Turn
	since := now.Add(-staleTime)
	for turn := range p.turns {
		turn.mutex.Lock()
		if !turn.attached && turn.since.Before(since) {
			oldest, since = turn, turn.since
		}
		turn.mutex.Unlock()
	}
	return oldest
}

func (p *Plugin) leave() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.running--
}

func (p *Plugin) sessionsOf(workspace string) *Sessions {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	found := p.sessions[workspace]
	if found == nil {
		found = openSessions(filepath.Join(stateFolder(), agentID(workspace)))
		p.sessions[workspace] = found
	}
	return found
}

func (p *Plugin) bridgeOf(agent string) (*Bridge, error) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if found := p.bridges[agent]; found != nil {
		return found, nil
	}
	opened, err := openBridge(agent, p.turnOf)
	if err == nil {
		p.bridges[agent] = opened
	}
	return opened, err
}

// turnOf is the turn whose guard is among those processes; else the only one of the agent that has tools.
func (p *Plugin) turnOf(processes map[int]bool, agent string) *Turn {
	p.turnsMutex.Lock()
	defer p.turnsMutex.Unlock()
	var others []*Turn
	for turn := range p.turns {
		if processes[turn.process.Guard] {
			return turn
		}
		if len(turn.tools) > 0 && agentID(turn.settings.Workspace) == agent {
			others = append(others, turn)
		}
	}
	if len(others) == 1 {
		return others[0]
	}
	return nil
}

func (p *Plugin) turnEnded(turn *Turn) {
	p.turnsMutex.Lock()
	delete(p.turns, turn)
	p.turnsMutex.Unlock()
	turn.mutex.Lock()
	waiting := turn.waiting
	turn.waiting = map[string]*Pending{}
	turn.mutex.Unlock()
	p.forget(waiting)
	p.leave()
	if len(turn.tools) > 0 && !turn.completed && turn.exit.Code > 0 {
		p.registering.Lock() // perhaps because somebody has taken our server out of its configuration
		delete(p.registered, agentID(turn.settings.Workspace))
		p.registering.Unlock()
	}
}

func (p *Plugin) waitFor(turn *Turn, shown []*Pending) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for _, pending := range shown {
		p.parked[pending.ID] = turn
	}
}

func (p *Plugin) forget(waiting map[string]*Pending) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for id := range waiting {
		delete(p.parked, id)
	}
}

// resumed is the turn that waits for one of these results; it is attached to the caller.
func (p *Plugin) resumed(owner string, news []Message) *Turn {
	for _, message := range news {
		p.mutex.Lock()
		turn := p.parked[message.CallID]
		p.mutex.Unlock()
		if message.Role == "tool" && turn != nil && turn.place.Owner == owner && turn.attach() {
			return turn
		}
	}
	return nil
}

// note keeps a failure for the page.
func (p *Plugin) note(problem error, garbage int) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.garbage += garbage
	if problem == nil || errors.Is(problem, errLeft) {
		return
	}
	p.problems = append(p.problems, Problem{time.Now(), bare(problem).Error()})
	if len(p.problems) > keptNote {
		p.problems = p.problems[len(p.problems)-keptNote:]
	}
}

// shutdown ends every turn; their guards would notice the end of this process as well.
func (p *Plugin) shutdown() {
	p.turnsMutex.Lock()
	var left []*Turn
	for turn := range p.turns {
		left = append(left, turn)
	}
	p.turnsMutex.Unlock()
	for _, turn := range left {
		turn.kill(errors.New("codex-cli: the plugin is being shut down"))
	}
	late := time.After(grace + time.Second)
	for _, turn := range left {
		select {
		case <-turn.done:
		case <-late:
		}
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for _, bridge := range p.bridges {
		bridge.close()
	}
	p.bridges = map[string]*Bridge{}
}

func init() {
	plugin.Serve(plugin.Methods{
		"plugin.register":         plugin.Reading(codex.configure),
		"plugin.reconfigure":      plugin.Reading(codex.configure),
		"model.static":            codex.models,
		"model.for_auth":          codex.models,
		"executor.identifier":     plugin.Constant(plugin.Identifier{Identifier: provider}),
		"executor.execute":        plugin.Reading(codex.execute),
		"executor.execute_stream": plugin.Reading(codex.executeStream),
		"executor.count_tokens":   plugin.Reading(codex.countTokens),
		"usage.handle":            plugin.Reading(codex.usage),
		"management.register":     plugin.Constant(pages),
		"management.handle":       plugin.Reading(codex.manage),
	})
	plugin.OnShutdown(codex.shutdown)
}

func main() {}
