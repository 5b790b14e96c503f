//go:build linux

// Package testbed is the ground on which servers are measured: a network namespace with nothing but loopback, so that no
// mail can leave and no port clashes; a process namespace, so that whatever was started ends with it; and a mount
// namespace in which /usr, /etc, /run and the rest are covered by layers that take every change, so that peers find their
// programs, users and spools where they were built to look, and the machine is left as it was. Linux and root.
//
// Three processes take part, all of them this program: Enter starts the second, which lays the ground as the first process
// of the namespace, starts the third, where the work is done, and buries the dead until that one ends.
package testbed

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// stageVar says to a process which of the three it is.
const (
	stageVar   = "MTABENCH_STAGE"
	stageBed   = "bed"
	stageWork  = "work"
	bedProblem = 70 // EX_SOFTWARE of sysexits.h
)

// Plan is what the ground has to hold.
type Plan struct {
	Dir   string   // a folder on a real disk: everything that is kept is below it
	Usr   []string // folders laid over /usr, the first on top; those that are missing are left out
	Users []string // accounts that peers need, each with a group of its name; those that are missing are made up
}

// Inside tells whether this process is the one that works.
func Inside() bool { return os.Getenv(stageVar) == stageWork }

// Outside tells whether this process is the one that the user has started.
func Outside() bool { return os.Getenv(stageVar) == "" }

// Permitted says in words why this process can't make a testbed; nil when it may try.
func Permitted() error {
	if os.Geteuid() != 0 {
		return errors.New("this needs root: it makes namespaces and a control group; try sudo, or a privileged container")
	}
	return nil
}

// Enter runs this program again, with its arguments, on ground laid after the plan, and returns its exit code.
func Enter(plan Plan) (int, error) {
	if os.Getenv(stageVar) == stageBed {
		return becomeBed(plan), nil
	}
	if err := Permitted(); err != nil {
		return 0, err
	}
	// The parent-death signal is that of a thread (prctl(2)).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := again(stageBed)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("no namespaces: %w (a container needs --privileged)", err)
	}
	defer passOn(cmd.Process)()
	return codeOf(cmd.Wait())
}

func again(stage string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), stageVar+"="+stage)
	return cmd
}

// passOn hands SIGINT and SIGTERM to the process until the returned function is called.
func passOn(p *os.Process) (stop func()) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		for s := range signals {
			_ = p.Signal(s) // it has ended already
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
	}
}

func codeOf(err error) (int, error) {
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return max(1, exit.ExitCode()), nil
	}
	return 0, err
}

// becomeBed is the first process of the namespace. When it ends the kernel ends all others.
func becomeBed(plan Plan) int {
	if err := lay(plan); err != nil {
		fmt.Fprintln(os.Stderr, "mtabench:", err)
		return bedProblem
	}
	work := again(stageWork)
	if err := work.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "mtabench:", err)
		return bedProblem
	}
	defer passOn(work.Process)()
	defer clearGroups(plan)
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			fmt.Fprintln(os.Stderr, "mtabench:", err)
			return bedProblem
		case pid == work.Process.Pid && status.Signaled():
			return 128 + int(status.Signal())
		case pid == work.Process.Pid:
			return status.ExitStatus()
		}
	}
}
