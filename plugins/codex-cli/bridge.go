package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The bridge: `cpa mcp-host`, which the agent starts as an MCP server, asks here for the client's tools and calls them.
//
// Both sides send frames: four bytes of length, big-endian, and a JSON object with a `type`.
//
//	host:   hello {version, agent_id} · call {id, name, arguments} · cancel {id}
//	plugin: welcome {tools} · result {id, content, is_error}
//
// Which turn a connection belongs to is seen from its process, which descends from that turn's guard; so turns of one
// agent may run at the same time although the agent's registration, and with it the socket, is the same for all.

const (
	bridgeVersion = 1
	maxFrame      = 32 << 20
	helloTime     = 10 * time.Second
	sendTime      = 30 * time.Second
	maxConns      = 256
	maxAncestors  = 64
)

// Frame in either direction.
type Frame struct {
	Type      string          `json:"type"`
	Version   int             `json:"version,omitempty"`
	AgentID   string          `json:"agent_id,omitempty"`
	Tools     []Tool          `json:"tools,omitempty"`
	ID        int64           `json:"id,omitempty"`
	Name      string          `json:"name,omitempty"`
	Arguments json.RawMessage `json:"arguments,omitempty"`
	Content   []Content       `json:"content,omitempty"`
	IsError   bool            `json:"is_error,omitempty"`
}

// Content of a result, as MCP has it.
type Content struct {
	Type     string `json:"type"`
	Text     string `json:"text,omitempty"`
	Data     string `json:"data,omitempty"`
	MimeType string `json:"mimeType,omitempty"`
}

// Bridge listens for the agent of one workspace.
type Bridge struct {
	agent    string
	socket   string // where agents are told to connect
	shared   bool   // it is the stable one, which the registration names
	listener net.Listener
	lock     *os.File
	turnOf   func(guards map[int]bool, agent string) *Turn
	conns    chan struct{}
}

// openBridge listens at the agent's stable socket, or, where another process of the user does, at one of its own.
func openBridge(agent string, turnOf func(map[int]bool, string) *Turn) (*Bridge, error) {
	folder, err := privateFolder(runtimePath())
	if err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(folder, agent+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	b := &Bridge{agent: agent, socket: stableSocket(agent), shared: true, lock: lock, turnOf: turnOf, conns: make(chan struct{}, maxConns)}
	if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		b.shared = false
		b.socket = strings.TrimSuffix(b.socket, ".sock") + "." + strconv.Itoa(os.Getpid()) + "." + randomID(4) + ".sock"
	}
	if len(b.socket) > maxSocketPath {
		lock.Close()
		return nil, fmt.Errorf("the path of a socket may have %d bytes: %s", maxSocketPath, b.socket)
	}
	_ = os.Remove(b.socket) // of a process that is gone, which the lock says
	if b.listener, err = net.Listen("unix", b.socket); err != nil {
		lock.Close()
		return nil, err
	}
	if err := os.Chmod(b.socket, 0o600); err != nil {
		b.close()
		return nil, err
	}
	go b.accept()
	return b, nil
}

// stableSocket is where the registered server of an agent connects.
func stableSocket(agent string) string { return filepath.Join(runtimePath(), agent+".sock") }

func (b *Bridge) close() {
	b.listener.Close() // removes the socket, too
	b.lock.Close()
}

func (b *Bridge) accept() {
	for {
		conn, err := b.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(100 * time.Millisecond) // out of descriptors: others will come back
			continue
		}
		select {
		case b.conns <- struct{}{}:
			go func() {
				defer func() { <-b.conns }()
				defer conn.Close()
				b.serve(conn.(*net.UnixConn))
			}()
		default:
			conn.Close()
		}
	}
}

func (b *Bridge) serve(conn *net.UnixConn) {
	pid, uid, err := peer(conn)
	if err != nil || uid != os.Getuid() {
		return
	}
	_ = conn.SetReadDeadline(time.Now().Add(helloTime))
	hello, err := readFrame(conn)
	if err != nil || hello.Type != "hello" || hello.Version != bridgeVersion || hello.AgentID != b.agent {
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	var mutex sync.Mutex
	send := func(frame Frame) error {
		mutex.Lock()
		defer mutex.Unlock()
		_ = conn.SetWriteDeadline(time.Now().Add(sendTime))
		return writeFrame(conn, frame)
	}
	turn := b.turnOf(ancestors(pid), b.agent)
	welcome := Frame{Type: "welcome", Version: bridgeVersion}
	if turn != nil {
		welcome.Tools = turn.tools
	}
	if send(welcome) != nil {
		return
	}
	open := map[int64]*Pending{} // by the host's ids
	defer func() {
		for _, pending := range open {
			pending.drop()
		}
	}()
	for {
		frame, err := readFrame(conn)
		if err != nil {
			return
		}
		switch frame.Type {
		case "call":
			id := frame.ID
			answer := func(content []Content, isError bool) {
				_ = send(Frame{Type: "result", ID: id, Content: content, IsError: isError})
			}
			if turn == nil {
				answer(text("no turn of a client is running here"), true)
				continue
			}
			for old, pending := range open {
				if pending.answered() {
					delete(open, old)
				}
			}
			pending, err := turn.call(frame.Name, frame.Arguments, answer)
			if err != nil {
				answer(text(err.Error()), true)
				continue
			}
			open[id] = pending
		case "cancel":
			if pending := open[frame.ID]; pending != nil {
				pending.drop()
				delete(open, frame.ID)
			}
		}
	}
}

func text(message string) []Content { return []Content{{Type: "text", Text: message}} }

func readFrame(from io.Reader) (Frame, error) {
	var frame Frame
	var head [4]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return frame, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxFrame {
		return frame, fmt.Errorf("a frame of %d bytes", size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(from, body); err != nil {
		return frame, err
	}
	return frame, json.Unmarshal(body, &frame)
}

func writeFrame(to io.Writer, frame Frame) error {
	body, err := json.Marshal(frame)
	if err != nil {
		return err
	}
	if len(body) > maxFrame {
		return fmt.Errorf("a frame of %d bytes", len(body))
	}
	_, err = to.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	return err
}

// peer is whose process is at the other end.
func peer(conn *net.UnixConn) (pid, uid int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var found *syscall.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		found, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err = errors.Join(err, failed); err != nil {
		return 0, 0, err
	}
	return int(found.Pid), int(found.Uid), nil
}

// ancestors of a process, itself included.
func ancestors(pid int) map[int]bool {
	found := map[int]bool{}
	for pid > 1 && len(found) < maxAncestors && !found[pid] {
		found[pid] = true
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			break
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) < 2 {
			break
		}
		pid, _ = strconv.Atoi(fields[1])
	}
	return found
}
