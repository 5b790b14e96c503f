//go:build linux

// Package meter accounts for what a server costs: CPU of its control group (processes that have ended count), memory of
// its processes, bytes that they wrote, syncs that they asked for, and what the rest of the machine did meanwhile. It
// needs Linux and a mounted cgroup v2 hierarchy in which it may make groups; a v1 machine has one beside its others, and
// no controller is needed. What can't be measured is left out and named, never reported as 0.
package meter

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Group is the control group of one server. Whatever its processes start is in it as well.
type Group struct{ dir string }

// NewGroup makes an empty group below a folder of the cgroup v2 hierarchy.
func NewGroup(parent, name string) (*Group, error) {
	g := &Group{dir: filepath.Join(parent, name)}
	if err := os.Mkdir(g.dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("no control group can be made: %w", err)
	}
	if left := g.Processes(); len(left) > 0 {
		return nil, fmt.Errorf("control group %s is not empty: processes %v", g.dir, left)
	}
	return g, nil
}

// Start starts the command inside the group.
func (g *Group) Start(cmd *exec.Cmd) error {
	f, err := os.Open(g.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.UseCgroupFD = true
	cmd.SysProcAttr.CgroupFD = int(f.Fd())
	return cmd.Start()
}

// Processes are the ids of the processes in the group.
func (g *Group) Processes() []int {
	text, err := os.ReadFile(filepath.Join(g.dir, "cgroup.procs"))
	if err != nil {
		return nil
	}
	var ids []int
	for word := range strings.FieldsSeq(string(text)) {
		if id, err := strconv.Atoi(word); err == nil && id > 0 {
			ids = append(ids, id)
		}
	}
	return ids
}

// End waits until the group is empty, helps with SIGTERM and then with SIGKILL, and removes it.
func (g *Group) End(grace time.Duration) {
	start := time.Now()
	asked := false
	for len(g.Processes()) > 0 && time.Since(start) < grace+5*time.Second {
		switch late := time.Since(start); {
		case late > grace:
			g.signal(syscall.SIGKILL)
		case late > grace/2 && !asked:
			asked = true
			g.signal(syscall.SIGTERM)
		}
		time.Sleep(20 * time.Millisecond)
	}
	os.Remove(g.dir)
}

func (g *Group) signal(s syscall.Signal) {
	for _, id := range g.Processes() {
		_ = syscall.Kill(id, s) // one that has just ended is no trouble
	}
}

// CPU is the time that the group has used.
func (g *Group) CPU() time.Duration {
	return time.Duration(field(filepath.Join(g.dir, "cpu.stat"), "usage_usec")) * time.Microsecond
}

// Memory is what the processes of a group hold now. RSS is summed over the processes, so that pages which they share count
// for each; Anon, without what belongs to files, is the fair figure for a server of many processes.
type Memory struct {
	RSS, Anon int64 // bytes
	Processes int
}

// Memory reads it.
func (g *Group) Memory() Memory {
	var m Memory
	page := int64(os.Getpagesize())
	for _, id := range g.Processes() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", id))
		if err != nil {
			continue
		}
		var size, resident, shared int64
		if _, err := fmt.Sscan(string(text), &size, &resident, &shared); err != nil {
			continue
		}
		m.RSS += resident * page
		m.Anon += (resident - shared) * page
		m.Processes++
	}
	return m
}

// Written is how many bytes the processes made the system write: pages of files that they dirtied, by calls or by maps. A
// process that has ended counts in its parent's figure, so it has to be read while the first process lives.
func (g *Group) Written() int64 {
	var sum int64
	for _, id := range g.Processes() {
		sum += field(fmt.Sprintf("/proc/%d/io", id), "write_bytes:")
	}
	return sum
}

// field finds a number by its name in a file of names and numbers; 0 without it.
func field(path, name string) int64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(text) {
		if words := strings.Fields(string(line)); len(words) >= 2 && words[0] == name {
			n, err := strconv.ParseInt(words[1], 10, 64)
			if err == nil {
				return n
			}
		}
	}
	return 0
}
