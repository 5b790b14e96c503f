package proc

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestProc(t *testing.T) {
	dir := t.TempDir()
	sleep := exec.Command("sleep", "600")
	sleep.Dir = dir
	if err := sleep.Start(); err != nil {
		t.Skip(err)
	}
	pid := sleep.Process.Pid
	await := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !ok(); <-time.After(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal(what)
			}
		}
	}
	await("it is not listed", func() bool {
		list := In(dir)
		return len(list) == 1 && strings.HasPrefix(list[0], strconv.Itoa(pid)+" sleep 600")
	})
	if Stands(pid) {
		t.Error("it stands before it was stopped")
	}
	if err := sleep.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	await("it does not stop", func() bool { return Stands(pid) })
	_ = sleep.Process.Kill()
	_ = sleep.Wait()
	if list := In(dir); len(list) > 0 {
		t.Errorf("%v is listed, and nobody is there", list)
	}
}
