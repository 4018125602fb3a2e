package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"sync"
	"syscall"
	"time"
)

const (
	maxSessions  = 2000
	maxStateFile = 16 << 20
)

// threadID is what the CLI may call a thread: also what may stand in its arguments and in file names.
var threadID = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._-]{0,127}$`)

// Session is a conversation that a thread of the agent holds.
type Session struct {
	Thread       string    `json:"thread_id"`
	Workspace    string    `json:"workspace"`
	Owner        string    `json:"owner"`        // digest of the client's scope
	Key          string    `json:"key"`          // digest of the client's session header, or empty
	Chain        Chain     `json:"chain"`        // of what the client knows; empty where the thread holds more than that
	Instructions string    `json:"instructions"` // digest of what the agent was told
	Model        string    `json:"model"`
	Turns        int       `json:"turns"`
	Used         time.Time `json:"used"`
	Problem      string    `json:"-"` // of its last turn

	busy   *Turn
	events []ToolEvent
}

// Sessions of one workspace, kept in a file.
type Sessions struct {
	mutex sync.Mutex
	path  string
	read  time.Time           // when what was last read of the file was written
	all   map[string]*Session // by thread
}

func openSessions(folder string) *Sessions {
	return &Sessions{path: filepath.Join(folder, "sessions.json"), all: map[string]*Session{}}
}

// refresh takes over what other processes of the proxy have noted. Call it with the mutex held.
func (s *Sessions) refresh() {
	info, err := os.Stat(s.path)
	if err != nil || info.ModTime().Equal(s.read) {
		return
	}
	text, err := readLimited(s.path, maxStateFile)
	if err != nil {
		return
	}
	s.read = info.ModTime()
	var stored []*Session
	if json.Unmarshal(text, &stored) != nil {
		return // conversations begin anew
	}
	for _, session := range stored {
		if session == nil || !threadID.MatchString(session.Thread) {
			continue
		}
		known := s.all[session.Thread]
		switch {
		case known == nil:
			s.all[session.Thread] = session
		case known.busy == nil && session.Used.After(known.Used):
			session.events, session.Problem = known.events, known.Problem
			*known = *session
		}
	}
}

// Place is where a turn belongs.
type Place struct {
	Owner string
	Key   string
	Chain Chain // of the history; empty where there is none
}

// find is the thread that holds just this conversation, or nil. A history has to match; without any, the session that
// the client names goes on. A thread that waits for a client which now says something else is given up.
func (s *Sessions) find(place Place) *Session {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.refresh()
	var found *Session
	for _, session := range s.all {
		if session.Owner != place.Owner || found != nil && session.Used.Before(found.Used) {
			continue
		}
		if place.Chain != "" && session.Chain == place.Chain || place.Chain == "" && place.Key != "" && session.Key == place.Key {
			found = session
		}
	}
	return found
}

// claim takes a session for a turn; false where another one has it.
func (s *Sessions) claim(session *Session, turn *Turn) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if session.busy != nil {
		return false
	}
	session.busy = turn
	return true
}

// holder is the turn that has a session, if any.
func (s *Sessions) holder(session *Session) *Turn {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return session.busy
}

// began notes that a turn runs on a thread, which may be a new one.
func (s *Sessions) began(thread string, turn *Turn, fresh Session) *Session {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	session := s.all[thread]
	if session == nil || session.Owner != fresh.Owner { // who says that it is another client's is wrong
		fresh.Thread, fresh.Used = thread, time.Now()
		session = &fresh
		s.all[thread] = session
		s.evict()
	}
	if fresh.Key != "" {
		session.Key = fresh.Key // already now: the client may go on without waiting for the end
	}
	session.busy = turn
	return session
}

func (s *Sessions) evict() {
	for len(s.all) > maxSessions {
		var oldest *Session
		for _, session := range s.all {
			if session.busy == nil && (oldest == nil || session.Used.Before(oldest.Used)) {
				oldest = session
			}
		}
		if oldest == nil {
			return
		}
		delete(s.all, oldest.Thread)
	}
}

// ended notes how a turn left its session, and keeps it.
func (s *Sessions) ended(session *Session, change func(*Session)) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	session.busy = nil
	session.Used = time.Now()
	change(session)
	return s.write()
}

// write keeps what there is; of several processes, none loses what another one has noted.
func (s *Sessions) write() error {
	folder, err := privateFolder(filepath.Dir(s.path))
	if err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(folder, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	s.refresh()
	s.evict()
	stored := make([]*Session, 0, len(s.all))
	for _, one := range s.all {
		stored = append(stored, one)
	}
	sort.Slice(stored, func(i, j int) bool { return stored[i].Used.After(stored[j].Used) })
	text, err := json.Marshal(stored)
	if err != nil {
		return err
	}
	return replaceFile(s.path, text, 0o600)
}

// list is a copy, the latest first.
func (s *Sessions) list() []Session {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.refresh()
	listed := make([]Session, 0, len(s.all))
	for _, session := range s.all {
		listed = append(listed, *session)
	}
	sort.Slice(listed, func(i, j int) bool { return listed[i].Used.After(listed[j].Used) })
	return listed
}

// replaceFile is all or nothing, also when the machine stops.
func replaceFile(path string, text []byte, mode os.FileMode) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if err := file.Chmod(mode); err != nil {
		return err
	}
	if _, err := file.Write(text); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

// get is the session of a thread, or nil.
func (s *Sessions) get(thread string) *Session {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.all[thread]
}

// release gives back what was claimed for something else than a turn.
func (s *Sessions) release(session *Session, change func(*Session)) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	session.busy = nil
	change(session)
}
