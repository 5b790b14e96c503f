//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pabal-mta/mta/cmd/mta/useragent/mailtest"
)

// terminal is a pseudo-terminal with a program on it, and a person before it.
type terminal struct {
	t    *testing.T
	keys *os.File // the side of the person
	mu   sync.Mutex
	seen strings.Builder
	cmd  *exec.Cmd
	end  chan struct{}
}

// onTerminal starts the program with a terminal for what it reads and for its messages; its output goes into a file.
func onTerminal(t *testing.T, cmd *exec.Cmd, output string) *terminal {
	t.Helper()
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	fd := int(keys.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	out, err := os.Create(output)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	x := &terminal{t: t, keys: keys, cmd: cmd, end: make(chan struct{})}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, out, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go x.look()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-x.end
		keys.Close()
	})
	return x
}

// look reads what is shown until the program has left the terminal.
func (x *terminal) look() {
	b := make([]byte, 4096)
	for {
		n, err := x.keys.Read(b)
		x.mu.Lock()
		x.seen.Write(b[:n])
		x.mu.Unlock()
		if err != nil {
			break
		}
	}
	_ = x.cmd.Wait() // its exit code is asked for
	close(x.end)
}

func (x *terminal) screen() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.seen.String()
}

// shows reports whether the terminal shows what is typed.
func (x *terminal) shows() bool {
	settings, err := unix.IoctlGetTermios(int(x.keys.Fd()), unix.TCGETS)
	return err != nil || settings.Lflag&unix.ECHO != 0
}

// asked waits for a question whose answer is not shown, and types.
func (x *terminal) asked(question, keys string) {
	x.t.Helper()
	if !poll(func() bool { return strings.HasSuffix(x.screen(), question) && !x.shows() }) {
		x.t.Fatalf("no question %q is on the screen: %q", question, x.screen())
	}
	if _, err := x.keys.WriteString(keys); err != nil {
		x.t.Fatal(err)
	}
}

// ended waits for the end of the program and returns its exit code.
func (x *terminal) ended() int {
	x.t.Helper()
	if !poll(func() bool {
		select {
		case <-x.end:
			return true
		default:
			return false
		}
	}) {
		x.t.Fatalf("it does not end; the screen: %q", x.screen())
	}
	return x.cmd.ProcessState.ExitCode()
}

// mailOnTerminal starts `mta mail` of ann on a terminal, without a password in its environment.
func mailOnTerminal(t *testing.T, s *mailtest.Server, output string, args ...string) *terminal {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, append([]string{"mail"}, args...)...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "MTA_TEST_PROGRAM=1", "HOME="+cmd.Dir, "MTA_PASSWORD=", "VISUAL=",
		"MTA_MAIL_IMAP="+s.IMAP, "MTA_MAIL_SUBMIT="+s.SMTP, "MTA_MAIL_USER=ann@example.test")
	return onTerminal(t, cmd, output)
}

// TestTerminal: the password is asked for and not shown, a long transfer tells how far it is and leaves nothing on the
// screen, and an interrupt ends a question and gives the terminal back.
func TestTerminal(t *testing.T) {
	t.Parallel()
	s, err := mailtest.Start("ann@example.test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	letter := "Subject: long\r\n\r\n" + strings.Repeat("All work and no play makes a long message, sixty-three octets.\r\n", 3<<20/65)
	if err := s.Deliver("ann@example.test", []byte(letter)); err != nil {
		t.Fatal(err)
	}
	const question = "password of ann@example.test: "
	output := filepath.Join(t.TempDir(), "out")

	x := mailOnTerminal(t, s, output, "read", "1", "-raw")
	x.asked(question, mailtest.Password+"\n")
	if code := x.ended(); code != 0 {
		t.Fatalf("read: %d, %q", code, x.screen())
	}
	screen := x.screen()
	if got, _ := os.ReadFile(output); string(got) != letter {
		t.Errorf("%d bytes of %d", len(got), len(letter))
	}
	if strings.Contains(screen, mailtest.Password) {
		t.Errorf("the password is on the screen: %q", screen)
	}
	contains(t, screen, "\rfetching 1.0 MiB of 3.0 MiB\x1b[K", "\rfetching 3.0 MiB of 3.0 MiB\x1b[K")
	if !strings.HasSuffix(screen, "\r\x1b[K") {
		t.Errorf("the last words stay on the screen: %q", screen[max(0, len(screen)-200):])
	}

	x = mailOnTerminal(t, s, output, "list")
	x.asked(question, "\x03")
	if code := x.ended(); code == 0 || !x.shows() {
		t.Errorf("an interrupt: exit code %d, the terminal shows what is typed: %v", code, x.shows())
	}
}
