package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Where things lie. Nothing of the plugin's own is in the workspace, because the agent may write there: what it says
// must not decide which thread somebody else continues.

// stateFolder is for what outlives the process.
func stateFolder() string {
	if state := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, "cpa", "codex-cli")
	}
	if home, err := os.UserHomeDir(); err == nil && filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "state", "cpa", "codex-cli")
	}
	return filepath.Join(runtimePath(), "state")
}

// maxSocketPath is what the kernel takes, without the NUL.
const maxSocketPath = 107

// runtimePath is for sockets and the files of a turn; the same in every process of the user, and short.
func runtimePath() string {
	name := "cpa-codex-cli"
	if runtime := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(runtime) && len(runtime) < 48 {
		if info, err := os.Stat(runtime); err == nil && info.IsDir() {
			return filepath.Join(runtime, name)
		}
	}
	return filepath.Join("/tmp", name+"-"+strconv.Itoa(os.Getuid()))
}

// privateFolder makes a folder that is nobody else's, and refuses one that somebody else could have made.
func privateFolder(path string) (string, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return "", err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	owner, known := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !known || int(owner.Uid) != os.Getuid() {
		return "", fmt.Errorf("%s: expected a folder of this user's own", path)
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(path, 0o700); err != nil {
			return "", err
		}
	}
	return path, nil
}

// agentID names the agent of a workspace: stable, unique, and fit for file names and the CLI's configuration.
func agentID(workspace string) string {
	var name strings.Builder
	for _, char := range strings.ToLower(filepath.Base(workspace)) {
		if char >= 'a' && char <= 'z' || char >= '0' && char <= '9' {
			name.WriteRune(char)
		} else if name.Len() > 0 {
			name.WriteByte('-')
		}
		if name.Len() >= 24 {
			break
		}
	}
	digest := sha256.Sum256([]byte(workspace))
	return strings.Trim(name.String()+"-"+hex.EncodeToString(digest[:4]), "-")
}

// serverName is under what the CLI knows our MCP server for an agent.
func serverName(agent string) string { return "cpa-host-" + agent }
