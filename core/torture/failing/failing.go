// Package failing lets system calls of another process fail: the n-th of a kind, counted over all its threads.
//
// The process arms itself by Arm, which sends its calls of that kind to whoever holds the listener (seccomp user
// notification), and its parent decides about each by Serve: the kernel does it, or it fails. No root is needed, and nothing
// else; it works for calls that go past every library, such as those of a Go program. It is of Linux on amd64 and
// arm64 alone.
package failing

import (
	"errors"
	"syscall"
)

// Failure is a system call that fails.
type Failure struct {
	Call  string // one of Calls
	Error syscall.Errno
	Nth   int // of the calls of this kind, from 1
}

// ErrNotHere says that system calls can't be made to fail here.
var ErrNotHere = errors.New("system calls can't be made to fail here")
