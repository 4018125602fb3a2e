package main

import (
	"encoding/json"
	"net"
	"os"
	"testing"
)

func TestTwoProcessesOfOneAgentHaveTheirOwnSockets(t *testing.T) {
	folder, err := os.MkdirTemp("/tmp", "cx")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(folder)
	t.Setenv("XDG_RUNTIME_DIR", folder)
	turn := &Turn{tools: []Tool{{Name: "t", InputSchema: json.RawMessage(`{}`)}}}
	open := func() *Bridge {
		t.Helper()
		bridge, err := openBridge("agent", func(processes map[int]bool, agent string) *Turn {
			if !processes[os.Getpid()] || agent != "agent" {
				t.Errorf("%v %s", processes, agent)
			}
			return turn
		})
		if err != nil {
			t.Fatal(err)
		}
		return bridge
	}
	first, second := open(), open()
	if !first.shared || first.socket != stableSocket("agent") || second.shared || second.socket == first.socket {
		t.Errorf("%s %s", first.socket, second.socket)
	}
	for _, bridge := range []*Bridge{first, second} {
		conn, err := net.Dial("unix", bridge.socket)
		if err != nil {
			t.Fatal(err)
		}
		if err := writeFrame(conn, Frame{Type: "hello", Version: bridgeVersion, AgentID: "agent"}); err != nil {
			t.Fatal(err)
		}
		welcome, err := readFrame(conn)
		if err != nil || welcome.Type != "welcome" || len(welcome.Tools) != 1 {
			t.Errorf("%+v %v", welcome, err)
		}
		conn.Close()
		bridge.close()
	}
	third := open() // after the first has gone
	defer third.close()
	if !third.shared {
		t.Error("nobody has the stable socket")
	}
	stranger, err := net.Dial("unix", third.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if err := writeFrame(stranger, Frame{Type: "hello", Version: bridgeVersion, AgentID: "another"}); err != nil {
		t.Fatal(err)
	}
	if frame, err := readFrame(stranger); err == nil {
		t.Errorf("%+v", frame)
	}
}
