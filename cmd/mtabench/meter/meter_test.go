//go:build linux

package meter

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fakeGroup is a folder that looks as the kernel's would with this process in it.
func fakeGroup(t *testing.T) *Group {
	t.Helper()
	g := &Group{dir: t.TempDir()}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(g.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("cgroup.procs", fmt.Sprintf("%d\n", os.Getpid()))
	write("cpu.stat", "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n")
	return g
}

func TestGroupIsRead(t *testing.T) {
	g := fakeGroup(t)
	if got := g.CPU(); got != 1500*time.Millisecond {
		t.Errorf("CPU %v", got)
	}
	m := g.Memory()
	if m.Processes != 1 || m.Anon <= 0 || m.RSS <= m.Anon {
		t.Errorf("memory of this process: %+v", m)
	}
	before := g.Written()
	f, err := os.Create(filepath.Join(t.TempDir(), "written"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if got := g.Written() - before; got != 0 && got < 1<<20 { // 0 where the folder is in memory
		t.Errorf("1 MiB written counts as %d", got)
	}
}

func TestAGroupThatIsNotEmptyIsRefused(t *testing.T) {
	g := fakeGroup(t)
	if _, err := NewGroup(filepath.Dir(g.dir), filepath.Base(g.dir)); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("%v", err)
	}
	if _, err := NewGroup("/no/such/folder", "x"); err == nil {
		t.Error("a hierarchy that is not there is no error")
	}
}

func TestMeterMeasuresTheMachine(t *testing.T) {
	g := fakeGroup(t)
	m := Start(g, t.TempDir())
	start := ownCPU()
	for sum := 0; ownCPU()-start < 30*time.Millisecond; sum++ {
	}
	if err := os.WriteFile(filepath.Join(g.dir, "cpu.stat"), []byte("usage_usec 1600000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	u := m.Stop()
	if u.Peer != 100*time.Millisecond || u.Self < 30*time.Millisecond || u.Other < 0 || u.Time <= 0 || u.Peak.Processes != 1 {
		t.Errorf("%+v", u)
	}
}

func TestSyncsSayWhyTheyAreNotCounted(t *testing.T) {
	if _, problem := SyncsOn("/proc"); !strings.Contains(problem, "none of ext4") {
		t.Errorf("/proc: %q", problem)
	}
	if _, problem := SyncsOn("/no/such/folder"); problem == "" {
		t.Error("a folder that is not there is no problem")
	}
	if (*syncCounter)(nil).stop() != -1 {
		t.Error("without a counter the count is not -1")
	}
}
