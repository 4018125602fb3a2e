package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"cpa-codex-cli/internal/plugin"
)

const (
	queuedEvents = 256              // between the CLI and a client; a full queue makes the CLI wait
	maxPending   = 128              // calls of client tools that one turn waits for
	parkTime     = 10 * time.Minute // how long a client may take to answer its tools' calls
	staleTime    = time.Minute      // after which others that want its place come first
	gatherTime   = 60 * time.Millisecond
	probeTime    = 200 * time.Millisecond // how soon a client is noticed to have left
	stderrKept   = 16 << 10
)

// Turn is one run of the CLI. It may span several requests of the client: where the agent calls a tool of the client,
// one ends with the call, and the next one brings the result and goes on. In between the turn is parked.
//
// One goroutine, run, owns the process from start to end; serve hands its events to whoever is there for them.
type Turn struct {
	plugin   *Plugin
	settings Settings
	ask      Ask
	place    Place
	tools    []Tool
	process  *Process
	folder   string // private one, for pictures and schemas
	began    time.Time

	sign   chan struct{} // closed when there is something for the client
	events chan Event
	calls  chan *Pending
	dead   chan struct{} // closed when it is to end before its time
	done   chan struct{} // closed when nothing of it is left

	mutex    sync.Mutex
	session  *Session
	attached bool
	parked   *time.Timer
	since    time.Time           // when it was parked
	waiting  map[string]*Pending // shown to the client, without result
	killed   error

	// Of the process's output; read them after done.
	completed bool
	failure   string
	usage     *Usage
	base      *Usage // what the thread had used before
	garbage   int
	exit      Exit
	stderr    []byte
}

// Pending is a call of a client's tool that the agent waits for.
type Pending struct {
	ID        string
	Name      string
	Arguments string
	once      sync.Once
	over      chan struct{}
	reply     func([]Content, bool)
}

func (c *Pending) answer(content []Content, isError bool) {
	c.once.Do(func() {
		close(c.over)
		c.reply(content, isError)
	})
}

// drop is an answer that nobody wants any more.
func (c *Pending) drop() { c.once.Do(func() { close(c.over) }) }

func (c *Pending) answered() bool {
	select {
	case <-c.over:
		return true
	default:
		return false
	}
}

// call is one by the agent of a tool of the client.
func (t *Turn) call(name string, arguments json.RawMessage, reply func([]Content, bool)) (*Pending, error) {
	known := false
	for _, tool := range t.tools {
		known = known || tool.Name == name
	}
	if !known {
		return nil, fmt.Errorf("the client has no tool %.100q", name)
	}
	if len(arguments) == 0 || string(arguments) == "null" {
		arguments = json.RawMessage(emptyObject)
	}
	pending := &Pending{ID: "call_" + randomID(12), Name: name, Arguments: string(arguments), over: make(chan struct{}), reply: reply}
	select {
	case t.calls <- pending:
		return pending, nil
	default:
		return nil, fmt.Errorf("more than %d calls wait for the client", maxPending)
	}
}

// kill ends the turn; only the first reason counts. Never blocks.
func (t *Turn) kill(reason error) {
	t.mutex.Lock()
	first := t.killed == nil
	if first {
		t.killed = reason
	}
	t.mutex.Unlock()
	if first {
		close(t.dead)
		t.process.End()
	}
}

// run reads what the process says until nothing of it is left.
func (t *Turn) run(prompt string) {
	var readers sync.WaitGroup
	readers.Add(3)
	go func() {
		defer readers.Done()
		_, _ = io.WriteString(t.process.Stdin, prompt) // a CLI that does not read it says why elsewhere
		t.process.Stdin.Close()
	}()
	go func() { defer readers.Done(); t.readErrors() }()
	go func() { defer readers.Done(); t.readEvents() }()
	late := time.AfterFunc(t.settings.TurnTimeout, func() {
		t.kill(&plugin.Error{Code: "turn_timeout", HTTPStatus: 504, Message: fmt.Sprintf(
			"codex-cli: the turn took longer than turn_timeout, %s", t.settings.TurnTimeout)})
	})
	t.exit = t.process.Exited()
	late.Stop()
	readers.Wait()
	t.process.Wait()
	os.RemoveAll(t.folder)
	t.plugin.turnEnded(t)
	close(t.done)
	t.mutex.Lock()
	alone := !t.attached
	t.mutex.Unlock()
	if alone {
		t.mutex.Lock()
		reason := t.killed
		t.mutex.Unlock()
		t.settle(reason, "")
	}
}

func (t *Turn) readErrors() {
	buffer := make([]byte, 4096)
	for {
		count, err := t.process.Stderr.Read(buffer)
		t.stderr = append(t.stderr, buffer[:count]...)
		if len(t.stderr) > 2*stderrKept {
			t.stderr = append([]byte(nil), t.stderr[len(t.stderr)-stderrKept:]...)
		}
		if err != nil {
			return
		}
	}
}

func (t *Turn) readEvents() {
	defer close(t.events)
	first := sync.OnceFunc(func() { close(t.sign) })
	lines := newLines(t.process.Stdout)
	for {
		event, err := lines.Next()
		t.garbage = lines.Garbage
		if err != nil {
			return
		}
		switch event.Type {
		case "thread.started":
			if threadID.MatchString(event.ThreadID) {
				t.started(event.ThreadID)
			} else {
				lines.Garbage++
			}
		case "turn.completed":
			t.completed = true
			if event.Usage != nil {
				t.usage = event.Usage
			}
		case "turn.failed":
			t.failure = "the turn failed"
			if event.Error != nil && event.Error.Message != "" {
				t.failure = event.Error.Message
			}
		case "error":
			if t.failure == "" && event.Message != "" {
				t.failure = event.Message
			}
		case "item.started", "item.updated", "item.completed":
			if event.Item.Type != "error" { // a notice, which often comes before everything
				first()
			}
			select {
			case t.events <- event:
			case <-t.dead: // read on, or the process could not end
			}
		}
	}
}

func (t *Turn) started(thread string) {
	fresh := Session{Workspace: t.settings.Workspace, Owner: t.place.Owner, Key: t.place.Key, Model: t.ask.Model}
	session := t.plugin.sessionsOf(t.settings.Workspace).began(thread, t, fresh)
	t.mutex.Lock()
	before := t.session
	t.session = session
	t.mutex.Unlock()
	if before != nil && before != session {
		_ = t.plugin.sessionsOf(t.settings.Workspace).ended(before, func(s *Session) { s.Chain = "" })
	}
}

// problem is why the turn failed; nil when it did not. Call it after done.
func (t *Turn) problem(anything bool) error {
	t.mutex.Lock()
	killed := t.killed
	t.mutex.Unlock()
	if killed != nil {
		return killed
	}
	clean := t.exit == Exit{}
	if clean && (t.completed || t.failure == "" && anything) {
		return nil
	}
	var parts []string
	if t.failure != "" {
		parts = append(parts, tail([]byte(t.failure)))
	}
	if !clean {
		parts = append(parts, t.exit.String())
	} else if t.failure == "" {
		parts = append(parts, "it ended without an answer")
	}
	if t.garbage > 0 {
		parts = append(parts, fmt.Sprintf("%d lines of its output were no events", t.garbage))
	}
	message := "codex-cli: " + oneLine(t.settings.Binary) + " failed: " + strings.Join(parts, "; ")
	if said := tail(t.stderr); said != "" {
		message += "; stderr: " + said
	}
	return &plugin.Error{Code: "cli_failed", HTTPStatus: 502, Message: message}
}

// spent is what this turn used: the CLI counts whole threads, which its record of the thread shows.
func (t *Turn) spent(total *Usage) Usage {
	switch {
	case t.usage == nil:
		return Usage{}
	case t.base == nil || total == nil || *total != *t.usage || t.base.Input > t.usage.Input:
		return *t.usage
	}
	positive := func(value int64) int64 { return max(value, 0) }
	return Usage{
		Input:     positive(t.usage.Input - t.base.Input),
		Cached:    positive(t.usage.Cached - t.base.Cached),
		Output:    positive(t.usage.Output - t.base.Output),
		Reasoning: positive(t.usage.Reasoning - t.base.Reasoning),
	}
}

// settle notes what became of the conversation, before the client is told: its next request may follow at once.
// A turn that failed leaves a thread that holds something else than what the client knows.
func (t *Turn) settle(problem error, chain Chain) Usage {
	t.mutex.Lock()
	session := t.session
	t.session = nil
	t.mutex.Unlock()
	if session == nil {
		return t.spent(nil)
	}
	events, total, unread := readRollout(session.Thread)
	_ = t.plugin.sessionsOf(t.settings.Workspace).ended(session, func(s *Session) {
		s.Chain, s.Model = chain, t.ask.Model
		s.Turns++
		if t.place.Key != "" {
			s.Key = t.place.Key
		}
		s.Instructions = digest(t.ask.instructions())
		s.Problem = ""
		if problem != nil {
			s.Problem = problem.Error()
		}
		if unread == nil {
			s.events = events
		}
	})
	return t.spent(total)
}

// attach makes the caller the one to whom events go; false where somebody else is, or nothing is left.
func (t *Turn) attach() bool {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if t.attached || t.killed != nil {
		return false
	}
	t.attached = true
	if t.parked != nil {
		t.parked.Stop()
	}
	return true
}

func (t *Turn) isParked() bool {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	return !t.attached
}

var errLeft = errors.New("codex-cli: the client has left")

// serve hands the turn's events to one answer, until the turn ends or waits for tools of the client. Who calls it has
// attached.
func (t *Turn) serve(ask Ask, history Chain, sink Sink) error {
	probe := time.NewTicker(probeTime)
	defer probe.Stop()
	var gathered []*Pending
	gathering := time.NewTimer(time.Hour)
	defer gathering.Stop()
	events, ended := t.events, (chan struct{})(nil)
	for {
		select {
		case event, more := <-events:
			if !more { // it may live on without a word; its client may still leave
				events, ended = nil, t.done
				continue
			}
			if err := sink.Event(event); err != nil {
				return t.abandon()
			}
		case <-ended:
			return t.finish(ask, history, sink)
		case pending := <-t.calls:
			if len(gathered) == 0 {
				gathering.Reset(gatherTime)
			}
			gathered = append(gathered, pending)
		case <-gathering.C:
			if len(gathered) == 0 {
				continue
			}
			if len(t.events) > 0 { // what was said before comes before
				gathering.Reset(time.Millisecond)
				continue
			}
			if gathered = unanswered(gathered); len(gathered) == 0 {
				continue
			}
			t.park(gathered) // first: its results may come while we still write
			if err := sink.Calls(gathered); err != nil {
				return t.abandon()
			}
			return nil
		case <-probe.C:
			if !sink.Alive() {
				return t.abandon()
			}
		}
	}
}

func unanswered(calls []*Pending) []*Pending {
	var left []*Pending
	for _, pending := range calls {
		if !pending.answered() {
			left = append(left, pending)
		}
	}
	return left
}

// abandon ends the turn because its client has left.
func (t *Turn) abandon() error {
	t.mutex.Lock()
	t.attached = false
	t.mutex.Unlock()
	t.kill(errLeft)
	select {
	case <-t.done: // run has looked already whether somebody else settles
		t.settle(errLeft, "")
	default:
	}
	return errLeft
}

func (t *Turn) park(shown []*Pending) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	for _, pending := range shown {
		t.waiting[pending.ID] = pending
	}
	t.attached, t.since = false, time.Now()
	t.parked = time.AfterFunc(parkTime, func() {
		if t.isParked() {
			t.kill(fmt.Errorf("codex-cli: the client did not answer the calls of its tools within %s", parkTime))
		}
	})
	t.plugin.waitFor(t, shown)
}

// resolve gives the agent what the client's tools answered. Calls without result get an error, or the agent would wait
// for ever; a word of the user's that comes along is told with the last result, because a turn takes no other message.
func (t *Turn) resolve(news []Message) {
	t.mutex.Lock()
	waiting := t.waiting
	t.waiting = map[string]*Pending{}
	t.mutex.Unlock()
	t.plugin.forget(waiting)
	var also []string
	var results []Message
	for _, message := range news {
		if message.Role == "tool" && waiting[message.CallID] != nil {
			results = append(results, message)
		} else if message.Role == "user" && message.Text != "" {
			also = append(also, message.Text)
		}
	}
	for i, message := range results {
		content := message.content()
		if i == len(results)-1 && len(also) > 0 {
			content = append(content, Content{Type: "text", Text: "[the user adds] " + strings.Join(also, "\n")})
		}
		waiting[message.CallID].answer(content, false)
		delete(waiting, message.CallID)
	}
	for _, pending := range waiting {
		pending.answer(text("the client gave no result"), true)
	}
}

func (m Message) content() []Content {
	content := text(m.Text)
	for _, image := range m.Images {
		if kind, data, found := strings.Cut(strings.TrimPrefix(image, "data:"), ";base64,"); found {
			content = append(content, Content{Type: "image", Data: data, MimeType: kind})
		}
	}
	return content
}

// finish ends the last answer of the turn.
func (t *Turn) finish(ask Ask, history Chain, sink Sink) error {
	said := sink.Said()
	problem := t.problem(said != "")
	chain := Chain("")
	if problem == nil {
		_, news := ask.split()
		if history == "" {
			news = spoken(ask.Messages)
		}
		chain = history.extend(append(news, Message{Role: "assistant", Text: said}))
	}
	used := t.settle(problem, chain)
	t.plugin.note(problem, t.garbage)
	if problem != nil {
		return problem
	}
	return sink.Finish(used)
}
