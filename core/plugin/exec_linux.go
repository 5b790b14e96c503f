package plugin

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// The child finds its pinned program under the number that it is inherited with, so that an interpreter finds it too.
func execPath(string) string { return fmt.Sprintf("/proc/self/fd/%d", execFD) }

func selfPath(self string) string {
	if self == "" {
		return "/proc/self/exe" // also when the file has been replaced by a newer one
	}
	return self
}

// sealedProgram copies a program into memory that nobody can change any more.
func sealedProgram(name string, r io.Reader) (*os.File, error) {
	return sealedCopy("mta-plugin-"+name, unix.MFD_EXEC, r)
}

// sealedCopy copies what r reads; may says whether it can be executed.
func sealedCopy(name string, may int, r io.Reader) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|may)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 all were executable
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "memfd:"+name)
	if _, err := io.Copy(f, r); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	seals := unix.F_SEAL_WRITE | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// sysProcAttr puts the child into a group of its own and has the kernel kill it when the thread that started it dies.
// With a credential it is armed after the change of user, which would disarm it.
func sysProcAttr(as *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: as}
}

// killMarked kills every process whose environment holds the mark, though it has left its group and its session and has lost
// its parents. It looks again until there is none, for they may have started more meanwhile. A process that has put another
// environment in the place of its own it does not find.
func killMarked(mark string) {
	for range 20 {
		files, _ := filepath.Glob("/proc/[0-9]*/environ")
		found := false
		for _, file := range files {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err == nil && pid != os.Getpid() {
				found = killIfMarked(pid, file, mark) || found
			}
		}
		if !found {
			return
		}
	}
}

// killIfMarked holds the process by a descriptor while it looks: its number may be somebody else's in the next moment.
func killIfMarked(pid int, environ, mark string) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	return isMarked(environ, mark) && unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil
}

// isMarked reports whether an environment holds a mark.
func isMarked(environ, mark string) bool {
	env, err := os.ReadFile(environ)
	return err == nil && bytes.Contains(append([]byte{0}, env...), []byte("\x00"+mark))
}

// awaitExit returns when the child has ended, and leaves it a zombie, so that its group's number is still its own.
func awaitExit(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
