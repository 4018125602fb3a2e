package main

/*
#include <stdlib.h>
#include "guard.h"

extern char **environ;

static inline const char *variable(int index) { return environ == NULL ? NULL : environ[index]; }
*/
import "C"

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// grace is how long processes have between SIGTERM and SIGKILL.
const grace = 2 * time.Second

// Command is a program to run; nothing of it goes through a shell.
type Command struct {
	Path string   // absolute
	Args []string // without the program's own name
	Env  []string
	Dir  string
}

// Process is a running program with everything that it starts; see guard.c. Whoever has one calls End and Wait.
type Process struct {
	Stdin          *os.File
	Stdout, Stderr *os.File
	Guard          int // process id
	control        *os.File
	status         *os.File
	end            sync.Once
}

// start runs a command under a guard of its own.
func start(command Command) (process *Process, err error) {
	var opened []*os.File
	defer func() {
		if err != nil {
			for _, file := range opened {
				file.Close()
			}
		}
	}()
	var ends [5][2]*os.File // in, out, err, control, status: reading and writing end
	for i := range ends {
		reading, writing, err := os.Pipe()
		if err != nil {
			return nil, fmt.Errorf("make a pipe: %w", err)
		}
		ends[i] = [2]*os.File{reading, writing}
		opened = append(opened, reading, writing)
	}
	argv := append([]string{command.Path}, command.Args...)
	path, dir := C.CString(command.Path), C.CString(command.Dir)
	defer C.free(unsafe.Pointer(path))
	defer C.free(unsafe.Pointer(dir))
	arguments, freeArguments := strings2C(argv)
	defer freeArguments()
	environment, freeEnvironment := strings2C(command.Env)
	defer freeEnvironment()
	// Fd makes a pipe's end blocking, which is what other programs expect of theirs.
	spec := C.struct_guard_spec{
		path: path, argv: arguments, envp: environment, dir: dir,
		in: C.int(ends[0][0].Fd()), out: C.int(ends[1][1].Fd()), err: C.int(ends[2][1].Fd()),
		control: C.int(ends[3][0].Fd()), status: C.int(ends[4][1].Fd()),
		grace_ms: C.int(grace.Milliseconds()),
	}
	guard := C.guard_start(&spec)
	if guard < 0 {
		return nil, fmt.Errorf("start a process: %w", syscall.Errno(-guard))
	}
	for _, theirs := range []*os.File{ends[0][0], ends[1][1], ends[2][1], ends[3][0], ends[4][1]} {
		theirs.Close()
	}
	return &Process{
		Stdin: ends[0][1], Stdout: ends[1][0], Stderr: ends[2][0],
		Guard: int(guard), control: ends[3][1], status: ends[4][0],
	}, nil
}

func strings2C(values []string) (**C.char, func()) {
	size := C.size_t(len(values)+1) * C.size_t(unsafe.Sizeof((*C.char)(nil)))
	memory := C.malloc(size)
	list := unsafe.Slice((**C.char)(memory), len(values)+1)
	for i, value := range values {
		list[i] = C.CString(value)
	}
	list[len(values)] = nil
	return (**C.char)(memory), func() {
		for _, value := range list[:len(values)] {
			C.free(unsafe.Pointer(value))
		}
		C.free(memory)
	}
}

// End lets the program and all that it started end, at once and from any goroutine.
func (p *Process) End() { p.end.Do(func() { p.control.Close() }) }

// Exit is how the program ended.
type Exit struct {
	Code   int            // 0..255; -1 where a signal ended it
	Signal syscall.Signal // 0 where none did
	Err    error          // it could not be started, or nobody knows
}

func (e Exit) String() string {
	switch {
	case e.Err != nil:
		return e.Err.Error()
	case e.Signal != 0:
		return fmt.Sprintf("ended by signal %d (%s)", int(e.Signal), e.Signal)
	}
	return fmt.Sprintf("exit code %d", e.Code)
}

// Exited waits for the program's own end; some that it started may still be there.
func (p *Process) Exited() Exit {
	var report [8]byte
	if _, err := io.ReadFull(p.status, report[:]); err != nil {
		return Exit{Code: -1, Err: fmt.Errorf("its guard is gone")}
	}
	value := int(int32(binary.NativeEndian.Uint32(report[4:])))
	if binary.NativeEndian.Uint32(report[:4]) == C.GUARD_FAILED {
		return Exit{Code: -1, Err: fmt.Errorf("cannot be started: %w", syscall.Errno(value))}
	}
	status := syscall.WaitStatus(value)
	if status.Signaled() {
		return Exit{Code: -1, Signal: status.Signal()}
	}
	return Exit{Code: status.ExitStatus()}
}

// Wait returns when nothing of the program is left, and gives back what the process holds.
func (p *Process) Wait() {
	for {
		if _, err := syscall.Wait4(p.Guard, nil, 0, nil); err != syscall.EINTR {
			break
		}
	}
	p.End()
	p.Stdin.Close()
	p.Stdout.Close()
	p.Stderr.Close()
	p.status.Close()
}

// takeEnvironment makes the process's present environment ours: Go's own is what the process was started with, and a
// host that loads us into itself may have changed it since.
func takeEnvironment() {
	for i := C.int(0); C.variable(i) != nil; i++ {
		name, value, found := strings.Cut(C.GoString(C.variable(i)), "=")
		if known, set := os.LookupEnv(name); found && (!set || known != value) {
			_ = os.Setenv(name, value)
		}
	}
}
