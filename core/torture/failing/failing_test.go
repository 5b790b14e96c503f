package failing

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// child names the environment variable that makes this test binary the process whose calls fail.
const child = "MTA_FAILING_CHILD"

func TestMain(m *testing.M) {
	if call := os.Getenv(child); call != "" {
		if err := Arm(call); err != nil {
			fmt.Println(err)
			os.Exit(3)
		}
		for i := range 5 {
			f, err := os.Create(filepath.Join(os.Getenv("MTA_FAILING_DIR"), fmt.Sprint(i)))
			if err == nil {
				_, err = f.WriteString("text")
			}
			if err == nil {
				err = f.Sync()
			}
			fmt.Println(i, err)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestTheNthCallFails(t *testing.T) {
	for _, c := range []struct {
		f    Failure
		line int // that tells of an error; -1: none
	}{
		{Failure{"fsync", syscall.EIO, 1}, 0},
		{Failure{"fsync", syscall.EIO, 4}, 3},
		{Failure{"fsync", syscall.EIO, 6}, -1},
		{Failure{"write", syscall.ENOSPC, 5}, 4},
		{Failure{"openat", syscall.EMFILE, 2}, 1},
		{Failure{"msync", syscall.EIO, 1}, -1},
	} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), child+"="+c.f.Call, "MTA_FAILING_DIR="+t.TempDir())
		var out strings.Builder
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		calls, err := Serve(cmd.Process.Pid, c.f)
		ended := cmd.Wait()
		if errors.Is(err, ErrNotHere) {
			t.Skip(err, out.String())
		}
		if err != nil || ended != nil {
			t.Fatal(err, ended)
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if want := map[string]int{"fsync": 5, "write": 5, "openat": 5}[c.f.Call]; calls != want || len(lines) != 5 {
			t.Errorf("%v: %d calls, want %d; %q", c.f, calls, want, lines)
		}
		for i, line := range lines {
			if failed := !strings.HasSuffix(line, "<nil>"); failed != (i == c.line) {
				t.Errorf("%v: %s", c.f, line)
			}
			if i == c.line && !strings.Contains(line, c.f.Error.Error()) {
				t.Errorf("%v: %s", c.f, line)
			}
		}
	}
}

func TestUnknownCall(t *testing.T) {
	if err := Arm("fork"); err == nil {
		t.Error("it was armed")
	}
}
