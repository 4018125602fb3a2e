package main

import (
	"encoding/json"
	"errors"
	"strings"
	"time"

	"cpa-codex-cli/internal/plugin"
)

// maxAnswer of one turn; a CLI that writes more has gone wild.
const maxAnswer = 64 << 20

// Sink is one answer to a client. An error of Event, Calls or Finish means that nobody reads it any more.
type Sink interface {
	Event(Event) error
	Calls([]*Pending) error
	Finish(Usage) error
	Alive() bool
	Said() string // the text so far
}

type chatToolCall struct {
	Index    *int   `json:"index,omitempty"`
	ID       string `json:"id"`
	Type     string `json:"type"`
	Function struct {
		Name      string `json:"name"`
		Arguments string `json:"arguments"`
	} `json:"function"`
}

type chatMessage struct {
	Role      string         `json:"role,omitempty"`
	Content   *string        `json:"content,omitempty"`
	Reasoning string         `json:"reasoning_content,omitempty"`
	ToolCalls []chatToolCall `json:"tool_calls,omitempty"`
}

type chatChoice struct {
	Index        int          `json:"index"`
	Delta        *chatMessage `json:"delta,omitempty"`
	Message      *chatMessage `json:"message,omitempty"`
	FinishReason *string      `json:"finish_reason"`
}

type chatUsage struct {
	Prompt        int64 `json:"prompt_tokens"`
	Completion    int64 `json:"completion_tokens"`
	Total         int64 `json:"total_tokens"`
	PromptDetails struct {
		Cached int64 `json:"cached_tokens"`
	} `json:"prompt_tokens_details"`
	CompletionDetails struct {
		Reasoning int64 `json:"reasoning_tokens"`
	} `json:"completion_tokens_details"`
}

type chatBody struct {
	ID      string       `json:"id"`
	Object  string       `json:"object"`
	Created int64        `json:"created"`
	Model   string       `json:"model"`
	Choices []chatChoice `json:"choices"`
	Usage   *chatUsage   `json:"usage,omitempty"`
}

func usageOf(used Usage) *chatUsage {
	usage := &chatUsage{Prompt: used.Input, Completion: used.Output, Total: used.Input + used.Output}
	usage.PromptDetails.Cached = used.Cached
	usage.CompletionDetails.Reasoning = used.Reasoning
	return usage
}

func toolCalls(calls []*Pending, indexed bool) []chatToolCall {
	listed := make([]chatToolCall, len(calls))
	for i, pending := range calls {
		listed[i].ID, listed[i].Type = pending.ID, "function"
		listed[i].Function.Name, listed[i].Function.Arguments = pending.Name, pending.Arguments
		if indexed {
			index := i
			listed[i].Index = &index
		}
	}
	return listed
}

const (
	stop          = "stop"
	stopToolCalls = "tool_calls"
)

// Teller turns events into text and reasoning; what an item has said already is not said again.
type Teller struct {
	commands bool // whether the agent's own work is shown
	told     map[string]string
	said     strings.Builder
	thought  strings.Builder
}

func newTeller(commands bool) *Teller { return &Teller{commands: commands, told: map[string]string{}} }

var errTooLong = errors.New("the answer is too long")

// tell is what an event adds to the answer's text and to its reasoning.
func (t *Teller) tell(event Event) (said, thought string, err error) {
	item := event.Item
	switch item.Type {
	case "agent_message":
		said = t.news(item, &t.said)
	case "reasoning":
		thought = t.news(item, &t.thought)
	default:
		if t.commands && event.Type == "item.completed" {
			if shown := item.annotated(); shown != "" {
				said = paragraph(&t.said) + shown
			}
		}
	}
	t.said.WriteString(said)
	t.thought.WriteString(thought)
	if t.said.Len()+t.thought.Len() > maxAnswer {
		err = errTooLong
	}
	return said, thought, err
}

// news of an item whose text grows; one that is rewritten is told anew.
func (t *Teller) news(item Item, before *strings.Builder) string {
	old := t.told[item.ID]
	if item.ID != "" {
		t.told[item.ID] = item.Text
	}
	switch {
	case item.Text == "" || item.Text == old:
		return ""
	case old != "" && strings.HasPrefix(item.Text, old):
		return item.Text[len(old):]
	}
	return paragraph(before) + item.Text
}

func paragraph(before *strings.Builder) string {
	if before.Len() == 0 {
		return ""
	}
	return "\n\n"
}

// Whole is an answer in one piece.
type Whole struct {
	*Teller
	head  chatBody
	body  []byte
	alive func() bool
}

func newHead(model, object string) chatBody {
	return chatBody{ID: "chatcmpl-" + randomID(12), Object: object, Created: time.Now().Unix(), Model: model}
}

func (w *Whole) Event(event Event) error {
	_, _, err := w.tell(event)
	return err
}

func (w *Whole) Alive() bool  { return w.alive() }
func (w *Whole) Said() string { return w.said.String() }

func (w *Whole) Calls(calls []*Pending) error {
	return w.close(stopToolCalls, toolCalls(calls, false), nil)
}

func (w *Whole) Finish(used Usage) error { return w.close(stop, nil, usageOf(used)) }

func (w *Whole) close(reason string, calls []chatToolCall, usage *chatUsage) (err error) {
	message := &chatMessage{Role: "assistant", Reasoning: w.thought.String(), ToolCalls: calls}
	if said := w.said.String(); said != "" || len(calls) == 0 {
		message.Content = &said
	}
	w.head.Choices = []chatChoice{{Message: message, FinishReason: &reason}}
	w.head.Usage = usage
	w.body, err = json.Marshal(w.head)
	return err
}

// Streamed is an answer in chunks.
type Streamed struct {
	*Teller
	head  chatBody
	id    string // of the host's stream
	usage bool   // the client wants to know
	begun bool
}

func (s *Streamed) Event(event Event) error {
	said, thought, err := s.tell(event)
	if err != nil {
		return err
	}
	if thought != "" {
		if err := s.delta(chatMessage{Reasoning: thought}, ""); err != nil {
			return err
		}
	}
	if said != "" {
		return s.delta(chatMessage{Content: &said}, "")
	}
	return nil
}

func (s *Streamed) Said() string { return s.said.String() }

func (s *Streamed) Calls(calls []*Pending) error {
	if err := s.delta(chatMessage{ToolCalls: toolCalls(calls, true)}, ""); err != nil {
		return err
	}
	return s.delta(chatMessage{}, stopToolCalls)
}

func (s *Streamed) Finish(used Usage) error {
	if err := s.delta(chatMessage{}, stop); err != nil || !s.usage {
		return err
	}
	last := s.head
	last.Choices, last.Usage = []chatChoice{}, usageOf(used)
	return s.emit(last)
}

// Alive asks by an empty chunk, which hosts take and do not deliver.
func (s *Streamed) Alive() bool { return emit(s.id, nil) == nil }

func (s *Streamed) delta(message chatMessage, reason string) error {
	if !s.begun {
		s.begun = true
		message.Role = "assistant"
		if message.Content == nil {
			empty := ""
			message.Content = &empty
		}
	}
	choice := chatChoice{Delta: &message}
	if reason != "" {
		choice.FinishReason = &reason
	}
	chunk := s.head
	chunk.Choices = []chatChoice{choice}
	return s.emit(chunk)
}

func (s *Streamed) emit(chunk chatBody) error {
	payload, err := json.Marshal(chunk)
	if err != nil {
		return err
	}
	return emit(s.id, payload)
}

type streamCall struct {
	StreamID string `json:"stream_id"`
	Payload  []byte `json:"payload,omitempty"`
	Error    string `json:"error,omitempty"`
}

func emit(stream string, payload []byte) error {
	return plugin.CallHost("host.stream.emit", streamCall{StreamID: stream, Payload: payload}, nil)
}

func closeStream(stream string, problem error) {
	call := streamCall{StreamID: stream}
	if problem != nil {
		call.Error = problem.Error()
	}
	_ = plugin.CallHost("host.stream.close", call, nil) // a host that is gone has closed it
}
