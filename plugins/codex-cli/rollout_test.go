package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestMutateLineLeavesAllOtherBytes(t *testing.T) {
	ops := map[string]string{"a": heavy, "b": ""}
	for line, expected := range map[string]string{
		`{"type":"response_item","payload":{"type":"function_call","call_id":"a","arguments":"{\"x\":1}","z":1e400}}` + "\r\n": `{"type":"response_item","payload":{"type":"function_call","call_id":"a","arguments":"{}","z":1e400}}` + "\r\n",
		`{"type":"response_item","payload":{"type":"function_call","call_id":"b","arguments":"{}x"}}`:                          `{"type":"response_item","payload":{"type":"function_call","call_id":"b","arguments":"{}x"}}`,
		`{"payload":{"output":[ {"t":1} ] ,"type":"function_call_output","call_id":"b"},"type":"response_item"}`:               `{"payload":{"output":"...(tool called)" ,"type":"function_call_output","call_id":"b"},"type":"response_item"}`,
		`{"type":"response_item","payload":{"type":"custom_tool_call","call_id":"a","input":"patch"}}`:                         `{"type":"response_item","payload":{"type":"custom_tool_call","call_id":"a","input":"{}"}}`,
		`{"type":"event_msg","payload":{"type":"function_call_output","call_id":"a","output":"x"}}`:                            `{"type":"event_msg","payload":{"type":"function_call_output","call_id":"a","output":"x"}}`,
		`{"type":"response_item","payload":{"type":"function_call_output","call_id":"c","output":"x"}}`:                        `{"type":"response_item","payload":{"type":"function_call_output","call_id":"c","output":"x"}}`,
		`{"type":"response_item","payload":{"type":"function_call_output","call_id":"a","output":"x"`:                          `{"type":"response_item","payload":{"type":"function_call_output","call_id":"a","output":"x"`,
		"": "",
	} {
		changed, _, err := mutateLine([]byte(line), ops)
		if err != nil || string(changed) != expected {
			t.Errorf("%s: %s %v", line, changed, err)
		}
	}
}

func TestSeveralProcessesKeepEachOthersSessions(t *testing.T) {
	folder := t.TempDir()
	first, second := openSessions(folder), openSessions(folder)
	note := func(s *Sessions, thread string, chain Chain) {
		t.Helper()
		turn := &Turn{}
		session := s.began(thread, turn, Session{Owner: "o"})
		if err := s.ended(session, func(s *Session) { s.Chain = chain }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond) // files' times are as coarse as that
	}
	note(first, "t1", "c1")
	note(second, "t2", "c2")
	note(first, "t1", "c3")
	for _, sessions := range []*Sessions{first, second, openSessions(folder)} {
		for chain, thread := range map[Chain]string{"c3": "t1", "c2": "t2"} {
			if found := sessions.find(Place{Owner: "o", Chain: chain}); found == nil || found.Thread != thread {
				t.Errorf("%s: %v", chain, found)
			}
		}
		if sessions.find(Place{Owner: "o", Chain: "c1"}) != nil || sessions.find(Place{Owner: "p", Chain: "c2"}) != nil {
			t.Error("found what is over, or somebody else's")
		}
	}
	if err := os.WriteFile(filepath.Join(folder, "sessions.json"), []byte("[{\"thread_id\":\"--flag\"},null"), 0o600); err != nil {
		t.Fatal(err)
	}
	if listed := openSessions(folder).list(); len(listed) != 0 {
		t.Errorf("%v", listed)
	}
}
