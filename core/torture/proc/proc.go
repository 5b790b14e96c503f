// Package proc looks at other processes, as tests and trials of the server have to. It reads /proc: where that is not, there
// are none.
package proc

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// In lists the living processes whose working directory is dir, by ID and command line. A server's is, and its plugins inherit it.
func In(dir string) (list []string) {
	links, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range links {
		if at, err := os.Readlink(link); err == nil && at == dir { // a zombie has none
			words, _ := os.ReadFile(filepath.Join(filepath.Dir(link), "cmdline"))
			list = append(list, filepath.Base(filepath.Dir(link))+" "+string(bytes.ReplaceAll(words, []byte{0}, []byte{' '})))
		}
	}
	return list
}

// Stands reports whether no thread of a process that was sent SIGSTOP runs: kill comes back before that, and a thread can answer a
// call still.
func Stands(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, thread := range threads {
		if stat, err := os.ReadFile(thread); err != nil || !strings.Contains(string(stat), ") T ") {
			return false
		}
	}
	return true
}
