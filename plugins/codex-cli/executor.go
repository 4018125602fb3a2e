package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"cpa-codex-cli/internal/plugin"
)

// Execute is what executor.execute, execute_stream and count_tokens bring.
type Execute struct {
	Model      string
	Headers    plugin.Header
	Payload    []byte
	Metadata   map[string]any
	StreamID   string `json:"stream_id"`
	CallbackID string `json:"host_callback_id"`
}

func (p *Plugin) execute(request Execute) (any, error) {
	ask, err := parseAsk(request.Model, request.Payload)
	if err != nil {
		return nil, err
	}
	turn, history, err := p.begin(ask, request)
	if err != nil {
		return nil, p.shown(err)
	}
	sink := &Whole{
		Teller: newTeller(showsCommands(turn.settings, request.Headers)),
		head:   newHead(request.Model, "chat.completion"),
		alive:  func() bool { return scopeAlive(request.CallbackID) },
	}
	if err := turn.serve(ask, history, sink); err != nil {
		if errors.Is(err, errLeft) {
			return nil, &plugin.Error{Code: "canceled", HTTPStatus: 499, Message: err.Error()}
		}
		return nil, err
	}
	return plugin.Executed{Payload: sink.body, Headers: plugin.Header{"Content-Type": {"application/json"}}}, nil
}

func (p *Plugin) executeStream(request Execute) (any, error) {
	if request.StreamID == "" {
		return nil, refused("stream_id is missing")
	}
	ask, err := parseAsk(request.Model, request.Payload)
	if err != nil {
		return nil, err
	}
	turn, history, err := p.begin(ask, request)
	if err != nil {
		return nil, p.shown(err)
	}
	sink := &Streamed{
		Teller: newTeller(showsCommands(turn.settings, request.Headers)),
		head:   newHead(request.Model, "chat.completion.chunk"),
		id:     request.StreamID,
		usage:  ask.IncludeUsage,
	}
	if turn.fails(signTime) {
		return nil, turn.serve(ask, history, sink)
	}
	go func() {
		err := errors.New("codex-cli: internal error")
		defer func() {
			if panicked := recover(); panicked != nil { // it would end the process, or the proxy
				turn.kill(err)
			}
			closeStream(request.StreamID, bare(err))
		}()
		err = turn.serve(ask, history, sink)
	}()
	return plugin.Streamed{Headers: plugin.Header{"Content-Type": {"text/event-stream"}}}, nil
}

// signTime is how long the head of a streamed answer waits for a sign of the agent: a CLI that is not logged in, or is not
// set up, ends within it, and its client gets an error with a status instead of a stream that breaks.
const signTime = 2 * time.Second

// fails waits for the first sign, and says whether the turn has ended without any.
func (t *Turn) fails(patience time.Duration) bool {
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-t.sign:
	case <-late.C:
	case <-t.done:
		select {
		case <-t.sign:
		default:
			return t.problem(false) != nil
		}
	}
	return false
}

// bare is an error without its code: clients see the text.
func bare(err error) error {
	var told *plugin.Error
	if errors.As(err, &told) {
		return errors.New(told.Message)
	}
	return err
}

// shown keeps a refusal for the page.
func (p *Plugin) shown(err error) error {
	p.note(err, 0)
	return err
}

// scopeAlive asks whether the client's request goes on. No call of the host waits for just that: one that is refused
// for its protocol unless it is refused for its scope (410) tells, and does nothing.
func scopeAlive(scope string) bool {
	var told *plugin.Error
	err := plugin.CallHost("host.model.execute_stream", struct {
		Stream bool   `json:"stream"`
		Entry  string `json:"entry_protocol"`
		Scope  string `json:"host_callback_id"`
	}{true, "none: is this scope alive?", scope}, nil)
	return !errors.As(err, &told) || told.HTTPStatus != 410
}

func showsCommands(settings Settings, headers plugin.Header) bool {
	switch strings.ToLower(header(headers, "X-Codex-Commands")) {
	case "1", "true", "yes", "on":
		return true
	case "0", "false", "no", "off":
		return false
	}
	return settings.ShowCommands
}

func header(headers plugin.Header, name string) string {
	for key, values := range headers {
		if strings.EqualFold(key, name) && len(values) > 0 {
			return strings.TrimSpace(values[0])
		}
	}
	return ""
}

// sessionHeaders name a conversation whose history the client may leave to us. Others, such as those that agents send
// with every request of theirs, do not: their clients send the whole history, which tells more.
var sessionHeaders = []string{"Session-Id", "Session_id", "X-Session-ID", "X-Session-Affinity"}

func placeOf(request Execute, ask Ask) Place {
	scope, _ := request.Metadata["caller_scope"].(string)
	place := Place{Owner: digest("owner", scope)}
	for _, name := range sessionHeaders {
		if value := header(request.Headers, name); value != "" && len(value) <= 256 {
			place.Key = digest("session", scope, value)
			break
		}
	}
	history, _ := ask.split()
	place.Chain = Chain("").extend(history)
	return place
}

func digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:16])
}

func randomID(size int) string {
	text := make([]byte, size)
	_, _ = rand.Read(text)
	return hex.EncodeToString(text)
}

// begin finds the turn that a request goes on with, or starts one. The caller serves it.
//
// Returns the turn, and what the conversation was before the request's messages where they do not tell that themselves.
func (p *Plugin) begin(ask Ask, request Execute) (*Turn, Chain, error) {
	_, news := ask.split()
	place := placeOf(request, ask)
	if turn := p.resumed(place.Owner, news); turn != nil {
		turn.resolve(news)
		return turn, "", nil
	}
	settings := p.current()
	path, err := findCLI(settings)
	if err != nil {
		return nil, "", err
	}
	if err := workspaceReady(settings); err != nil {
		return nil, "", err
	}
	sessions := p.sessionsOf(settings.Workspace)
	session := sessions.find(place)
	if session != nil {
		// A turn that waits for tools of the client, which now says something else, is over.
		if holder := sessions.holder(session); holder != nil && holder.isParked() {
			holder.kill(errors.New("codex-cli: the client went on without answering its tools' calls"))
			<-holder.done
			session = sessions.find(place)
		}
	}
	entered := p.enter(settings)
	if !entered {
		if left := p.stale(time.Now()); left != nil {
			left.kill(errors.New("codex-cli: the client did not answer its tools' calls, and others wait for the place"))
			<-left.done
			entered = p.enter(settings)
		}
	}
	if !entered {
		return nil, "", &plugin.Error{Code: "too_many_turns", HTTPStatus: 429, Retryable: true, Message: fmt.Sprintf(
			"codex-cli: %d turns are running, which is max_concurrent_turns; try again later", settings.Turns)}
	}
	turn, history, err := p.startTurn(path, settings, ask, place, session)
	if err != nil {
		p.leave()
		return nil, "", &plugin.Error{Code: "cannot_start", HTTPStatus: 503, Message: "codex-cli: " + err.Error()}
	}
	return turn, history, nil
}

func (p *Plugin) startTurn(path string, settings Settings, ask Ask, place Place, session *Session) (*Turn, Chain, error) {
	turn := &Turn{
		plugin: p, settings: settings, ask: ask, place: place, tools: ask.Tools, began: time.Now(),
		sign: make(chan struct{}), events: make(chan Event, queuedEvents), calls: make(chan *Pending, maxPending),
		dead: make(chan struct{}), done: make(chan struct{}),
		waiting: map[string]*Pending{}, attached: true,
	}
	sessions := p.sessionsOf(settings.Workspace)
	if session != nil && !sessions.claim(session, turn) {
		session = nil // it is being gone on with right now: this is a second try of the same
	}
	history, news := ask.split()
	instructions := ask.instructions()
	before, thread := Chain(""), ""
	if session != nil {
		thread, turn.session = session.Thread, session
		if place.Chain == "" {
			before = session.Chain
		}
		if session.Instructions == digest(instructions) {
			instructions = ""
		}
		history = nil
		_, turn.base, _ = readRollout(thread)
	}
	failed := func(err error) (*Turn, Chain, error) {
		os.RemoveAll(turn.folder)
		if session != nil {
			_ = sessions.ended(session, func(s *Session) { s.Problem = err.Error() })
		}
		return nil, "", err
	}
	images, schema, err := turn.files(news)
	if err != nil {
		return failed(err)
	}
	var mcp []string
	if len(ask.Tools) > 0 {
		bridge, err := p.bridgeOf(agentID(settings.Workspace))
		if err == nil {
			err = p.register(settings, bridge)
		}
		if err != nil {
			return failed(fmt.Errorf("the client's tools cannot be offered to the agent: %w", err))
		}
		mcp = mcpArguments(settings, bridge)
	}
	p.turnsMutex.Lock() // the agent's first call may come before we know that it is ours
	defer p.turnsMutex.Unlock()
	turn.process, err = start(Command{
		Path: path,
		Args: turnArguments(settings, ask, thread, images, schema, mcp),
		Env:  environment(settings),
		Dir:  settings.Workspace,
	})
	if err != nil {
		return failed(err)
	}
	p.turns[turn] = true
	go turn.run(prompt(instructions, history, news))
	return turn, before, nil
}

const maxImageBytes = 32 << 20

var imageKinds = map[string]string{"image/png": ".png", "image/jpeg": ".jpg", "image/gif": ".gif", "image/webp": ".webp"}

// files are what the CLI reads from files: the user's pictures, and the schema of the answer.
func (t *Turn) files(news []Message) (images []string, schema string, err error) {
	var urls []string
	for _, message := range news {
		if message.Role == "user" {
			urls = append(urls, message.Images...)
		}
	}
	if len(urls) == 0 && len(t.ask.Schema) == 0 {
		return nil, "", nil
	}
	parent, err := privateFolder(runtimePath())
	if err != nil {
		return nil, "", err
	}
	if t.folder, err = os.MkdirTemp(parent, "turn-"); err != nil {
		return nil, "", err
	}
	for i, url := range urls {
		kind, data, found := strings.Cut(strings.TrimPrefix(url, "data:"), ";base64,")
		extension := imageKinds[strings.ToLower(kind)]
		if !found || extension == "" || len(data) > maxImageBytes {
			return nil, "", fmt.Errorf("image %d: expected at most %d bytes of base64 of a png, jpeg, gif or webp, got %.40q", i+1, maxImageBytes, kind)
		}
		decoded, err := base64.StdEncoding.DecodeString(data)
		if err != nil {
			return nil, "", fmt.Errorf("image %d: %w", i+1, err)
		}
		path := filepath.Join(t.folder, fmt.Sprintf("image-%d%s", i+1, extension))
		if err := os.WriteFile(path, decoded, 0o600); err != nil {
			return nil, "", err
		}
		images = append(images, path)
	}
	if len(t.ask.Schema) > 0 {
		schema = filepath.Join(t.folder, "schema.json")
		err = os.WriteFile(schema, t.ask.Schema, 0o600)
	}
	return images, schema, err
}

// countTokens estimates: the CLI counts only what it has sent.
func (p *Plugin) countTokens(request Execute) (any, error) {
	ask, err := parseAsk(request.Model, request.Payload)
	if err != nil {
		return nil, err
	}
	chars := 0
	for _, message := range ask.Messages {
		chars += utf8.RuneCountInString(message.Text)
	}
	count := (chars + 3) / 4
	payload, err := json.Marshal(map[string]int{"total_tokens": count, "input_tokens": count})
	return plugin.Executed{Payload: payload, Headers: plugin.Header{"Content-Type": {"application/json"}}}, err
}
