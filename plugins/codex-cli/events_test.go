package main

import (
	"io"
	"strings"
	"testing"
)

func TestLines(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	text := "\n  \nnonsense\n[]\n{\"type\":7}\n" + long + "yz\n" +
		`{"type":"a","usage":{"input_tokens":"many"}}` + "\n" + `{"type":"b","item":[]}` + "\r\n" + `{"type":"c"}`
	lines := newLines(strings.NewReader(text))
	var found []string
	for {
		event, err := lines.Next()
		if err == io.EOF {
			if event.Type != "" {
				t.Error("an event with the end")
			}
			break
		}
		found = append(found, event.Type)
	}
	if strings.Join(found, "") != "abc" || lines.Garbage != 4 {
		t.Errorf("%q, %d lines of garbage", found, lines.Garbage)
	}
}

func TestTellerSaysEverythingOnce(t *testing.T) {
	teller := newTeller(false)
	var said string
	for _, step := range [][2]string{{"1", "a"}, {"1", "ab"}, {"1", "ab"}, {"2", "x"}, {"2", "rewritten"}, {"", "z"}, {"", "z"}} {
		more, _, err := teller.tell(Event{Type: "item.updated", Item: Item{ID: step[0], Type: "agent_message", Text: step[1]}})
		if err != nil {
			t.Fatal(err)
		}
		said += more
	}
	if said != "ab\n\nx\n\nrewritten\n\nz\n\nz" || said != teller.said.String() {
		t.Errorf("%q", said)
	}
}

func TestTail(t *testing.T) {
	for text, expected := range map[string]string{
		"a\x1b[31mred\x00\n":                      "a[31mred",
		"Authorization: Bearer abc.def":           "Authorization: [masked]",
		"sk-proj-0123456789 eyJhbGciOiJub25lIn0.": "[masked] [masked].",
		"https://me:secret@example.org/x":         "https[masked]example.org/x",
	} {
		if found := tail([]byte(text)); found != expected {
			t.Errorf("%q: %q", text, found)
		}
	}
	if long := tail([]byte(strings.Repeat("ä", 5000))); len(long) > maxTail || !strings.HasSuffix(long, "ä") {
		t.Errorf("%d bytes", len(long))
	}
}
