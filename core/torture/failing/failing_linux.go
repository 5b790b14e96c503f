//go:build amd64 || arm64

package failing

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

var numbers = map[string]uint32{
	"fsync": unix.SYS_FSYNC, "fdatasync": unix.SYS_FDATASYNC, "msync": unix.SYS_MSYNC, "write": unix.SYS_WRITE, "pwrite64": unix.SYS_PWRITE64, "openat": unix.SYS_OPENAT,
	"renameat": unix.SYS_RENAMEAT, "unlinkat": unix.SYS_UNLINKAT, "ftruncate": unix.SYS_FTRUNCATE, "fallocate": unix.SYS_FALLOCATE, "mmap": unix.SYS_MMAP,
}

// Calls are the calls that can fail.
func Calls() []string { return slices.Sorted(maps.Keys(numbers)) }

// listener is the descriptor under which an armed process has its listener.
const listener = 99

// Where the filter finds things: the number of the call, and the lower half of its fifth argument, the descriptor of mmap.
const (
	atNumber = 0
	atFifth  = 16 + 4*8
)

// Arm sends all calls of that kind of this process, from now on, to whoever serves it. Until then they wait. Memory that a
// program maps for itself alone is left out of mmap.
func Arm(call string) error {
	number, ok := numbers[call]
	if !ok {
		return fmt.Errorf("there is no call %q among %v", call, Calls())
	}
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	give := func(what uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: what} }
	equal := func(k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jt: yes, Jf: no}
	}
	notify, allow := give(unix.SECCOMP_RET_USER_NOTIF), give(unix.SECCOMP_RET_ALLOW)
	program := []unix.SockFilter{load(atNumber), equal(number, 0, 1), notify, allow}
	if call == "mmap" {
		const none = 1<<32 - 1 // as a descriptor: no file
		program = []unix.SockFilter{load(atNumber), equal(number, 0, 3), load(atFifth), equal(none, 1, 0), notify, allow}
	}
	return install(program)
}

func install(program []unix.SockFilter) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil { // the other threads get it with the filter
		return fmt.Errorf("%w: no_new_privs: %w", ErrNotHere, err)
	}
	p := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH
	fd, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&p)))
	runtime.KeepAlive(program)
	if e != 0 {
		return fmt.Errorf("%w: seccomp: %w", ErrNotHere, e)
	}
	return unix.Dup3(int(fd), listener, unix.O_CLOEXEC)
}

// notification is struct seccomp_notif.
type notification struct {
	id   uint64
	pid  uint32
	_    uint32
	nr   int32
	arch uint32
	ip   uint64
	args [6]uint64
}

// answer is struct seccomp_notif_resp.
type answer struct {
	id    uint64
	value int64
	err   int32
	flags uint32
}

// Serve decides about the calls of a process that arms itself, and returns when that has ended, with how many calls there
// were, those to its standard descriptors left out.
func Serve(pid int, f Failure) (calls int, err error) {
	fd, err := take(pid)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrNotHere, err)
	}
	defer func() { _ = unix.Close(fd) }()
	for {
		list := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(list, -1); err != nil && err != unix.EINTR {
			return calls, err
		}
		if list[0].Revents&unix.POLLIN == 0 {
			if list[0].Revents != 0 { // nobody is left
				return calls, nil
			}
			continue
		}
		var n notification
		if e := control(fd, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)); e != nil {
			continue // it has gone meanwhile
		}
		a := answer{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		if standard := (f.Call == "write" || f.Call == "fsync") && n.args[0] <= 2; !standard {
			if calls++; calls == f.Nth {
				a.flags, a.err = 0, -int32(f.Error)
			}
		}
		_ = control(fd, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&a)) // nor need it be there now
	}
}

func control(fd int, request uint, what unsafe.Pointer) error {
	for {
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(what))
		switch e {
		case 0:
			return nil
		case unix.EINTR:
			continue
		}
		return e
	}
}

// take gets hold of the listener of a process that is about to arm itself.
func take(pid int) (int, error) {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(process) }()
	for range 2000 {
		var fd int
		if fd, err = unix.PidfdGetfd(process, listener, 0); err == nil {
			return fd, nil
		}
		if err != unix.EBADF {
			return 0, err
		}
		time.Sleep(5 * time.Millisecond)
	}
	return 0, err
}
