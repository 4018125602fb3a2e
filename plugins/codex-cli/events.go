package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
)

// maxLine of the CLI's output that is read; longer ones are skipped and counted. Outputs of commands are in them.
const maxLine = 16 << 20

// Event is one line of `codex exec --json`.
type Event struct {
	Type     string   `json:"type"`
	ThreadID string   `json:"thread_id"`
	Item     Item     `json:"item"`
	Usage    *Usage   `json:"usage"`
	Error    *Failure `json:"error"`
	Message  string   `json:"message"`
}

// Failure of a turn.
type Failure struct {
	Message string `json:"message"`
}

// Usage as the CLI counts it: of the whole thread, resumed turns included.
type Usage struct {
	Input     int64 `json:"input_tokens"`
	Cached    int64 `json:"cached_input_tokens"`
	Output    int64 `json:"output_tokens"`
	Reasoning int64 `json:"reasoning_output_tokens"`
}

// Item of a turn; which members it has depends on its type.
type Item struct {
	ID        string          `json:"id"`
	Type      string          `json:"type"`
	Text      string          `json:"text"`
	Message   string          `json:"message"`
	Command   string          `json:"command"`
	Output    string          `json:"aggregated_output"`
	ExitCode  *int            `json:"exit_code"`
	Status    string          `json:"status"`
	Server    string          `json:"server"`
	Tool      string          `json:"tool"`
	Arguments json.RawMessage `json:"arguments"`
	Query     string          `json:"query"`
	Changes   []struct {
		Path string `json:"path"`
		Kind string `json:"kind"`
	} `json:"changes"`
	Items []struct {
		Text      string `json:"text"`
		Completed bool   `json:"completed"`
	} `json:"items"`
}

// Lines reads events and counts what is none.
type Lines struct {
	reader  *bufio.Reader
	Garbage int // lines that are no event: neither JSON nor an object with a type, or too long
}

func newLines(from io.Reader) *Lines { return &Lines{reader: bufio.NewReaderSize(from, 64<<10)} }

// Next event; an error is the end.
func (l *Lines) Next() (Event, error) {
	for {
		line, err := l.line()
		if len(bytes.TrimSpace(line)) > 0 {
			var event Event
			// A member of another type than ours is one that we do not know: what could be read counts.
			var mistyped *json.UnmarshalTypeError
			wrong := json.Unmarshal(line, &event)
			if event.Type != "" && (wrong == nil || errors.As(wrong, &mistyped)) {
				return event, nil
			}
			l.Garbage++
		}
		if err != nil {
			return Event{}, err
		}
	}
}

// line without a bound would let one program fill the memory.
func (l *Lines) line() ([]byte, error) {
	var whole []byte
	long := false
	for {
		part, err := l.reader.ReadSlice('\n')
		if len(whole)+len(part) > maxLine {
			long, whole = true, nil
		}
		if !long {
			whole = append(whole, part...)
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		if long {
			l.Garbage++
		}
		return whole, err
	}
}

// annotated shows what the agent did, for clients that ask for it. Empty for what is shown otherwise.
func (i Item) annotated() string {
	var out strings.Builder
	switch i.Type {
	case "command_execution":
		out.WriteString("[command] " + oneLine(i.Command))
		if i.ExitCode != nil && *i.ExitCode != 0 || i.Status == "failed" || i.Status == "declined" {
			out.WriteString(" (" + i.outcome() + ")")
		}
		if text := strings.TrimRight(shortened(i.Output, 4000), "\n"); text != "" {
			out.WriteString("\n" + fence(text))
		}
	case "file_change":
		out.WriteString("[files]")
		for _, change := range i.Changes {
			out.WriteString("\n- " + oneLine(change.Kind) + " " + oneLine(change.Path))
		}
	case "mcp_tool_call":
		out.WriteString("[tool] " + oneLine(i.Server) + "." + oneLine(i.Tool) + " " + oneLine(string(i.Arguments)))
	case "web_search":
		out.WriteString("[search] " + oneLine(i.Query))
	case "todo_list":
		out.WriteString("[plan]")
		for _, step := range i.Items {
			mark := " "
			if step.Completed {
				mark = "x"
			}
			out.WriteString("\n- [" + mark + "] " + oneLine(step.Text))
		}
	case "error":
		out.WriteString("[notice] " + oneLine(i.Message))
	}
	return out.String()
}

func (i Item) outcome() string {
	if i.ExitCode != nil {
		return Exit{Code: *i.ExitCode}.String()
	}
	return oneLine(i.Status)
}

// fence puts text into a code block whose marks do not occur in it.
func fence(text string) string {
	marks := "```"
	for strings.Contains(text, marks) {
		marks += "`"
	}
	return marks + "\n" + text + "\n" + marks
}

func oneLine(text string) string {
	return shortened(strings.Join(strings.Fields(text), " "), 1000)
}

func shortened(text string, most int) string {
	text = strings.ToValidUTF8(text, "\ufffd")
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most/2], "") + " … " + strings.ToValidUTF8(text[len(text)-most/2:], "")
}
