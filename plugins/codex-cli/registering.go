package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// hostCommand is how the agent starts `cpa mcp-host`: the program of the proxy that we are a plugin of.
func hostCommand() ([]string, error) {
	for _, pid := range []int{os.Getppid(), os.Getpid()} { // of the worker process, and inline
		line, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		if err != nil {
			continue
		}
		python, _, _ := strings.Cut(string(line), "\x00")
		if !strings.HasPrefix(filepath.Base(python), "python") {
			continue
		}
		if !filepath.IsAbs(python) {
			if strings.Contains(python, "/") {
				folder, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/cwd")
				if err != nil {
					continue
				}
				python = filepath.Join(folder, python)
			} else if python, err = exec.LookPath(python); err != nil {
				continue
			}
		}
		if script := filepath.Join(filepath.Dir(python), "cpa"); executable(script) {
			return []string{script, "mcp-host"}, nil
		}
		if executable(python) {
			// -P: the agent's folder is no place to import programs from.
			return []string{python, "-P", "-m", "cpa", "mcp-host"}, nil
		}
	}
	path, err := exec.LookPath("cpa")
	if err != nil {
		return nil, fmt.Errorf("the program cpa is not found: %w", err)
	}
	return []string{path, "mcp-host"}, nil
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

// register makes the agent know our MCP server, once per agent and process: again would only write the same again.
func (p *Plugin) register(settings Settings, bridge *Bridge) error {
	p.registering.Lock()
	defer p.registering.Unlock()
	if p.registered[bridge.agent] {
		return nil
	}
	command, err := hostCommand()
	if err != nil {
		return err
	}
	arguments := []string{
		"mcp", "add", serverName(bridge.agent),
		"--env", "CPA_MCP_SOCKET=" + stableSocket(bridge.agent),
		"--env", "CPA_MCP_AGENT_ID=" + bridge.agent,
		"--",
	}
	if _, err := runShort(settings, append(arguments, command...)...); err != nil {
		return err
	}
	p.registered[bridge.agent] = true
	return nil
}

// mcpArguments adapt the registered server to one turn: a client's person may take long, the client has decided about
// its own tools already, and a process beside the one that has the stable socket has another one.
func mcpArguments(settings Settings, bridge *Bridge) []string {
	server := "mcp_servers." + serverName(bridge.agent)
	arguments := []string{
		"-c", fmt.Sprintf("%s.tool_timeout_sec=%.0f", server, settings.TurnTimeout.Seconds()+60),
		"-c", server + `.default_tools_approval_mode="approve"`,
		"-c", server + ".supports_parallel_tool_calls=true",
	}
	if !bridge.shared {
		arguments = append(arguments, "-c", fmt.Sprintf("%s.env.CPA_MCP_SOCKET=%q", server, bridge.socket))
	}
	return arguments
}
