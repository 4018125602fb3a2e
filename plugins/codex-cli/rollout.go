package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

const (
	maxRollout  = 512 << 20
	maxEvents   = 1000
	maxShown    = 2000
	marker      = "...(tool called)" // what stands in the place of an output that was taken out
	heavy       = "heavy"
	kindCall    = "tool_call"
	kindResult  = "tool_result"
	emptyObject = "{}"
)

// ToolEvent is a call of a tool by the agent, or its output, as the agent's own record has it.
type ToolEvent struct {
	Kind      string `json:"type"`     // tool_call or tool_result
	CallID    string `json:"block_id"` // the agent's real id
	Name      string `json:"name,omitempty"`
	Arguments string `json:"arguments,omitempty"` // shortened
	Output    string `json:"output,omitempty"`    // shortened
}

// rolloutPath is the record of a thread; empty where there is none.
func rolloutPath(thread string) string {
	if !threadID.MatchString(thread) {
		return ""
	}
	newest := ""
	for _, path := range rollouts("rollout-*-" + thread + ".jsonl") {
		if filepath.Base(path) > filepath.Base(newest) {
			newest = path
		}
	}
	return newest
}

// rollouts are the records of that name: in folders by day, or where older programs put them.
func rollouts(name string) []string {
	var found []string
	for _, between := range []string{"*/*/*", "*", ""} {
		paths, _ := filepath.Glob(filepath.Join(globbed(codexHome()), "sessions", between, name))
		found = append(found, paths...)
	}
	return found
}

// rolloutOf says whether a record is of a thread in that workspace, which its first line tells.
func rolloutOf(path, workspace string) bool {
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	var first struct {
		Type    string `json:"type"`
		Payload struct {
			Cwd string `json:"cwd"`
		} `json:"payload"`
	}
	err = json.NewDecoder(io.LimitReader(file, maxLine)).Decode(&first)
	return err == nil && first.Type == "session_meta" && filepath.IsAbs(first.Payload.Cwd) &&
		resolved(first.Payload.Cwd) == workspace
}

var globbed = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace

type rolloutLine struct {
	Type    string `json:"type"`
	Payload struct {
		Type      string          `json:"type"`
		Name      string          `json:"name"`
		Arguments string          `json:"arguments"`
		Input     string          `json:"input"`
		CallID    string          `json:"call_id"`
		Output    json.RawMessage `json:"output"`
		Info      *struct {
			Total *Usage `json:"total_token_usage"`
		} `json:"info"`
	} `json:"payload"`
}

func isCall(kind string) bool { return kind == "function_call" || kind == "custom_tool_call" }
func isOutput(kind string) bool {
	return kind == "function_call_output" || kind == "custom_tool_call_output"
}

// readRollout is every call and output of a thread, and what the thread had used so far.
func readRollout(thread string) ([]ToolEvent, *Usage, error) {
	path := rolloutPath(thread)
	if path == "" {
		return nil, nil, fmt.Errorf("no rollout file of thread %s below %s", thread, filepath.Join(codexHome(), "sessions"))
	}
	text, err := readLimited(path, maxRollout)
	if err != nil {
		return nil, nil, err
	}
	var events []ToolEvent
	var total *Usage
	for _, line := range bytes.SplitAfter(text, []byte("\n")) {
		var read rolloutLine
		_ = json.Unmarshal(line, &read) // what could be read counts
		switch payload := read.Payload; {
		case read.Type == "event_msg" && payload.Type == "token_count" && payload.Info != nil && payload.Info.Total != nil:
			total = payload.Info.Total
		case read.Type != "response_item" || payload.CallID == "":
		case isCall(payload.Type):
			arguments := payload.Arguments
			if payload.Type == "custom_tool_call" {
				arguments = payload.Input
			}
			events = append(events, ToolEvent{Kind: kindCall, CallID: payload.CallID, Name: payload.Name, Arguments: shortened(arguments, maxShown)})
		case isOutput(payload.Type):
			events = append(events, ToolEvent{Kind: kindResult, CallID: payload.CallID, Output: shortened(outputText(payload.Output), maxShown)})
		}
	}
	if len(events) > maxEvents {
		events = events[len(events)-maxEvents:]
	}
	return events, total, nil
}

func outputText(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	return string(raw)
}

// Mutation of one call: its output goes, and with op heavy its arguments too.
type Mutation struct {
	BlockID string `json:"block_id"`
	Op      string `json:"op"`
}

// mutateRollout rewrites the entries of those calls in one file, atomically; every other line stays as it is, byte for
// byte. Returns the ids that were in it.
func mutateRollout(path string, ops map[string]string) (map[string]bool, error) {
	text, err := readLimited(path, maxRollout)
	if err != nil {
		return nil, err
	}
	touched := map[string]bool{}
	var rewritten bytes.Buffer
	for _, line := range bytes.SplitAfter(text, []byte("\n")) {
		changed, id, err := mutateLine(line, ops)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Base(path), err)
		}
		if id != "" {
			touched[id] = true
		}
		rewritten.Write(changed)
	}
	if len(touched) == 0 || bytes.Equal(rewritten.Bytes(), text) {
		return touched, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	return touched, replaceFile(path, rewritten.Bytes(), info.Mode().Perm())
}

// mutateLine returns the line as it has to be, and the id of the call that it is about, if that is asked for.
func mutateLine(line []byte, ops map[string]string) ([]byte, string, error) {
	var read rolloutLine
	_ = json.Unmarshal(line, &read)
	payload := read.Payload
	op, wanted := ops[payload.CallID]
	if read.Type != "response_item" || !wanted || payload.CallID == "" {
		return line, "", nil
	}
	var member, value string
	switch {
	case isOutput(payload.Type):
		member, value = "output", marker
	case payload.Type == "function_call" && op == heavy:
		member, value = "arguments", emptyObject
	case payload.Type == "custom_tool_call" && op == heavy:
		member, value = "input", emptyObject
	case isCall(payload.Type):
		return line, payload.CallID, nil
	default:
		return line, "", nil
	}
	encoded, err := json.Marshal(value)
	if err != nil {
		return nil, "", err
	}
	changed, err := replaceMember(line, encoded, "payload", member)
	return changed, payload.CallID, err
}

// replaceMember puts a value into the place of a member of an object in an object, and leaves all other bytes.
func replaceMember(line, value []byte, path ...string) ([]byte, error) {
	from, to, err := memberSpan(line, path)
	if err != nil {
		return nil, err
	}
	return append(append(append(make([]byte, 0, len(line)+len(value)), line[:from]...), value...), line[to:]...), nil
}

// memberSpan is where the value of a member stands. Of repeated members the last one counts, as for who reads them.
func memberSpan(text []byte, path []string) (from, to int, err error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return 0, 0, fmt.Errorf("expected an object around %q", path[0])
	}
	found := false
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return 0, 0, err
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return 0, 0, err
		}
		if name == path[0] {
			found, to = true, int(decoder.InputOffset())
			from = to - len(value)
		}
	}
	if !found {
		return 0, 0, fmt.Errorf("member %q is missing", path[0])
	}
	if len(path) == 1 {
		return from, to, nil
	}
	inner, end, err := memberSpan(text[from:to], path[1:])
	return from + inner, from + end, err
}

// mentions says whether any of those calls is in a file.
func mentions(path string, ops map[string]string) (bool, error) {
	text, err := readLimited(path, maxRollout)
	for id := range ops {
		if err == nil && bytes.Contains(text, []byte(id)) {
			return true, nil
		}
	}
	return false, err
}
