package plugin

import (
	"errors"
	"fmt"
	"io"
	"os"
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

// sealedCopy copies a program into memory that nobody can change any more.
func sealedCopy(name string, r io.Reader) (*os.File, error) {
	fd, err := unix.MemfdCreate("mta-plugin-"+name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 all were executable
		fd, err = unix.MemfdCreate("mta-plugin-"+name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
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

// awaitExit returns when the child has ended, and leaves it a zombie, so that its group's number is still its own.
func awaitExit(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
