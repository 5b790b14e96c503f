package engine

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestLargeMessageGoesByDescriptor sends messages as they come in, from memory and from a spool file, past a filter.
func TestLargeMessageGoesByDescriptor(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("contents go in chunks here")
	}
	e := benchEngine(t)
	r := &faultRig{engine: e, accepted: map[string]bool{}}
	files := make(map[uint64]bool) // that there have been, by inode
	noteContents(files)
	before := len(files) // of another test, and not closed yet
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			noteContents(files)
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
		}
	})
	s := r.session("with")
	for _, size := range []int{4000, 200 << 10, 2 << 20} {
		if _, _, code := r.send(s, "ann@here.example", "bob@there.example", size); code != 250 {
			t.Error(s)
		}
	}
	s.close()
	close(done)
	wg.Wait()
	if n := len(files) - before; n != 2 {
		t.Errorf("%d files for two large messages", n)
	}
}

// noteContents notes the files that this process has in memory for plugins.
func noteContents(files map[uint64]bool) {
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, link := range links {
		name, _ := os.Readlink(link)
		info, err := os.Stat(link)
		if err != nil || !strings.Contains(name, "memfd:mta-content") {
			continue
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			files[stat.Ino] = true
		}
	}
}
