package plugin

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pabal-mta/mta/core/torture/proc"
)

// TestHostKilled kills a host and sees its plugin go, and with the next host of the same directory the plugin's socket and
// what it had started.
func TestHostKilled(t *testing.T) {
	needsProc(t)
	run := spec(t, "good").RunDir
	host := exec.Command(os.Args[0])
	host.Env = append(os.Environ(), "MODE=host", "RUN="+run, "OF=escaped")
	out, err := host.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 32)
	n, err := out.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	plugin, err := strconv.Atoi(strings.TrimSpace(string(line[:n])))
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = host.Wait()
	for end := time.Now().Add(3 * time.Second); isRunning(plugin); {
		if time.Now().After(end) {
			t.Fatal("the plugin lives on without its host")
		}
	}
	if left := processesOf(run); len(left) != 1 {
		t.Fatalf("the plugin's child should be there yet: %v", left)
	}
	r, err := newRoom(run, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	if rooms, _ := filepath.Glob(filepath.Join(run, "room-*")); len(rooms) != 1 {
		t.Errorf("the dead host's room is still there: %v", rooms)
	}
	for end := time.Now().Add(3 * time.Second); len(processesOf(run)) > 0; {
		if time.Now().After(end) {
			t.Fatalf("what the plugin had started lives on: %v", processesOf(run))
		}
	}
}

// processesOf returns the processes whose environment names a directory.
func processesOf(dir string) (list []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range files {
		if env, err := os.ReadFile(file); err == nil && strings.Contains(string(env), dir+"/") {
			list = append(list, file)
		}
	}
	return list
}

// groupRuns reports whether a process of that group runs; one that only waits to be reaped does not.
func groupRuns(t *testing.T, group int) bool {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		stat, _ := os.ReadFile(path)
		_, rest, _ := strings.Cut(string(stat), ") ") // state, parent, group
		if f := strings.Fields(rest); len(f) > 2 && f[0] != "Z" && f[2] == strconv.Itoa(group) {
			return true
		}
	}
	return false
}

// halt stops a process, and waits until all of its threads stand: kill comes back while some still run, and those can
// answer a call.
func halt(t *testing.T, pid int) {
	t.Helper()
	kill(t, pid, syscall.SIGSTOP)
	for end := time.Now().Add(20 * time.Second); !proc.Stands(pid); <-time.After(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("process %d does not stop", pid)
		}
	}
}

// isRunning tells a process that runs from one that is gone or waits to be reaped.
func isRunning(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func beHost() {
	s := Spec{Name: "faulty", Builtin: "faulty", Env: []string{"MODE=" + cmp.Or(os.Getenv("OF"), "good")}, RunDir: os.Getenv("RUN")}
	h, err := Start(context.Background(), []Spec{s}, Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(h.Status()[0].PID)
	select {}
}
