package main

import (
	"strings"
	"testing"
	"time"
)

func parsed(t *testing.T, messages string) Ask {
	t.Helper()
	ask, err := parseAsk("codex", []byte(`{"messages":`+messages+`}`))
	if err != nil {
		t.Fatal(err)
	}
	return ask
}

func TestChainIgnoresHowAHistoryIsWritten(t *testing.T) {
	base := `{"role":"user","content":"one two"},{"role":"assistant","content":"three"}`
	same := []string{
		`[` + base + `]`,
		`[{"role":"system","content":"x"},` + base + `,{"role":"user","content":"new"}]`,
		`[{"role":"user","content":[{"type":"text","text":"one"},{"type":"text","text":"two"}]},{"role":"assistant","content":" three\n"}]`,
		`[{"role":"user","content":"one two"},{"role":"assistant","content":"th"},{"role":"assistant","content":"ree"}]`,
	}
	other := []string{
		`[{"role":"user","content":"one two!"},{"role":"assistant","content":"three"}]`,
		`[{"role":"assistant","content":"one two"},{"role":"user","content":"three"},{"role":"assistant","content":""}]`,
		`[` + base + `,` + base + `]`,
	}
	chain := func(messages string) Chain {
		history, _ := parsed(t, messages).split()
		return Chain("").extend(history)
	}
	wanted := chain(same[0])
	for _, messages := range same {
		if chain(messages) != wanted {
			t.Errorf("another conversation: %s", messages)
		}
	}
	for _, messages := range other {
		if chain(messages) == wanted {
			t.Errorf("the same conversation: %s", messages)
		}
	}
	if chain(`[{"role":"user","content":"one"}]`) != "" {
		t.Error("there is no history")
	}
}

func TestWhatIsRefused(t *testing.T) {
	for text, expected := range map[string]string{
		`{}`:                              "messages: expected at least one",
		`{"messages":[{"role":"robot"}]}`: `messages[0].role: expected system, developer, user, assistant or tool, got "robot"`,
		`{"messages":[{"role":"user","content":7}]}`: "messages[0].content: expected a string or a list of parts",
		`[]`: "expected a chat request",
	} {
		if _, err := parseAsk("codex", []byte(text)); err == nil || !strings.Contains(err.Error(), expected) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := parseAsk("--dangerously", []byte(`{"messages":[{"role":"user","content":"x"}]}`)); err == nil {
		t.Error("a flag for a model")
	}
}

func TestTheTurnThatWaitsLongestMakesRoom(t *testing.T) {
	now := time.Now()
	waits := func(ago time.Duration) *Turn { return &Turn{since: now.Add(-ago)} }
	oldest := waits(3 * staleTime)
	p := &Plugin{turns: map[*Turn]bool{waits(2 * staleTime): true, oldest: true, {attached: true}: true}}
	if p.stale(now) != oldest {
		t.Error("another one")
	}
	if p := (&Plugin{turns: map[*Turn]bool{waits(staleTime / 2): true}}); p.stale(now) != nil {
		t.Error("a turn that has not waited long")
	}
}
