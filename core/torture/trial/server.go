// Package trial runs the real server program under load and faults, and judges it by the ledger.
//
// A trial owns a home directory with an mta.hcl, the server's process, a generator of load, and the sinks that the server
// delivers to. All that it decides by chance comes from one seed: how large messages are, when the server or one of its
// plugins is killed, where a sink cuts. What the machine does with the time between is not repeated. A trial leaves no
// process behind, and its home only when something went wrong.
package trial

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pabal-mta/mta/core/admin"
	"github.com/pabal-mta/mta/core/torture/proc"
)

// Patience bounds every wait for the server. It is long because a loaded machine is slow, not because it is needed.
const Patience = 60 * time.Second

// Program is how the server program is called.
type Program struct {
	Path   string
	Before []string // a command that Path and its arguments are given to, such as strace
	Env    []string // beside the environment of this process
}

// Server is a server in a home of its own, started and killed any number of times.
type Server struct {
	Program Program
	Dir     string // the home, where mta.hcl lies
	Address string // of its listener
	Done    func(queue string)

	cmd   *exec.Cmd
	ended chan struct{} // closed when the process has ended and all it wrote was read

	mu   sync.Mutex
	tail []string // of the log
}

const config = `
hostname = "relay.example"
domains  = ["example.test"]
data_dir = %q

listener "mx" {
  address = [%q]
  limits {
    connections_per_ip = 200
  }
}

plugin "bounces" {
  source = "builtin:bounces"
}

plugin "mime" {
  source = "builtin:mime"
}

route "one" {
  domains   = ["one.example", "back.example"]
  smarthost = %q
  tls       = "none"
  convert   = [plugin.mime]
}

route "two" {
  domains   = ["two.example"]
  smarthost = %q
  tls       = "none"
}

queue {
  retry    = ["1s"]
  jitter   = 0
  min_free = %q
}

bounce {
  notify = [plugin.bounces]
}

admin {
  socket = %q
}
`

// Settings are what of the configuration differs between trials.
type Settings struct {
	DataDir  string // "var", or an absolute path
	MinFree  string // "1MiB"
	One, Two string // the addresses of the sinks
}

// Configure writes mta.hcl.
func (s *Server) Configure(o Settings) error {
	text := fmt.Sprintf(config, o.DataDir, s.Address, o.One, o.Two, o.MinFree, s.socket())
	return os.WriteFile(filepath.Join(s.Dir, "mta.hcl"), []byte(text), 0o600)
}

func (s *Server) socket() string { return filepath.Join(s.Dir, "admin.sock") }

// command prepares the program with these arguments.
func (s *Server) command(ctx context.Context, args ...string) *exec.Cmd {
	line := append(append(append([]string{}, s.Program.Before...), s.Program.Path), args...)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Dir = s.Dir
	cmd.Env = append(os.Environ(), s.Program.Env...)
	return cmd
}

// Launch starts the process and returns at once.
func (s *Server) Launch() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer w.Close()
	cmd := s.command(context.Background(), "serve", "-log", "json", "-log-level", "debug")
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		r.Close()
		return err
	}
	ended := make(chan struct{})
	s.cmd, s.ended = cmd, ended
	go func() {
		defer r.Close()
		s.read(r)
		_ = cmd.Wait() // ProcessState tells how it ended
		close(ended)
	}()
	return nil
}

// read looks for what is done in the log, and keeps its end.
func (s *Server) read(r io.Reader) {
	lines := bufio.NewReaderSize(r, 256<<10)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var e struct{ Level, Msg, ID string }
		if json.Unmarshal(line, &e) != nil || e.Level == "WARN" || e.Level == "ERROR" {
			s.keep(string(bytes.TrimSpace(line)))
		}
		if e.Msg == "done" && s.Done != nil {
			s.Done(e.ID)
		}
	}
}

func (s *Server) keep(line string) {
	const enough = 60
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tail = append(s.tail, line); len(s.tail) > enough {
		s.tail = s.tail[len(s.tail)-enough:]
	}
}

// Log returns the end of what was worth a word.
func (s *Server) Log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.tail, "\n")
}

// Dead reports whether the process has ended.
func (s *Server) Dead() bool {
	if s.cmd == nil {
		return true
	}
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// End says how a process that is dead ended.
func (s *Server) End() string { return s.cmd.ProcessState.String() }

// errNotReady says that a server did not become ready.
var errNotReady = errors.New("the server did not become ready")

// Start starts the process and waits until it is ready.
func (s *Server) Start(ctx context.Context) error {
	if err := s.Launch(); err != nil {
		return err
	}
	return s.Ready(ctx)
}

// Ready waits until the server is ready.
func (s *Server) Ready(ctx context.Context) error {
	err := Poll(ctx, Patience, func() bool {
		st, err := s.Status(ctx)
		return err == nil && st.Ready == "ok" || s.Dead()
	})
	if err != nil || s.Dead() {
		return fmt.Errorf("%w; its log ends with\n%s", errNotReady, s.Log())
	}
	return nil
}

// Status asks the server.
func (s *Server) Status(ctx context.Context) (admin.Status, error) {
	return admin.NewClient(s.socket()).Status(ctx)
}

// Queued lists what is in the queue.
func (s *Server) Queued(ctx context.Context) (list []admin.Message, err error) {
	err = admin.NewClient(s.socket()).List(ctx, admin.Selection{}, func(m admin.Message) error {
		list = append(list, m)
		return nil
	})
	return list, err
}

// Plugins are the processes of the plugins.
func (s *Server) Plugins(ctx context.Context) (pids []int) {
	st, err := s.Status(ctx)
	if err != nil {
		return nil
	}
	for _, p := range st.Plugins {
		if p.PID > 0 {
			pids = append(pids, p.PID)
		}
	}
	return pids
}

// Kill ends the process with SIGKILL, and waits until it and all its plugins are gone.
func (s *Server) Kill(ctx context.Context) error {
	if s.cmd == nil {
		return nil
	}
	_ = s.cmd.Process.Kill()
	<-s.ended
	return s.gone(ctx)
}

// refusesTwin starts a second server in the same home while the first one runs. It must end at once, and say why.
func (s *Server) refusesTwin(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, Patience)
	defer stop()
	twin := s.command(ctx, "serve")
	out, err := twin.CombinedOutput()
	if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 1 || !bytes.Contains(out, []byte("another")) {
		return fmt.Errorf("a second server in the same home was not refused: %w\n%s", err, out)
	}
	return nil
}

// Stop ends the server in order. It fails unless the exit code is 0 and nothing is left.
func (s *Server) Stop(ctx context.Context) error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-s.ended:
	case <-time.After(Patience):
		return errors.New("the server did not stop")
	}
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("the server ended with %s", s.cmd.ProcessState)
	}
	return s.gone(ctx)
}

// gone waits until no process lives in the home, which must not take long after the server's end.
func (s *Server) gone(ctx context.Context) error {
	if err := Poll(ctx, 10*time.Second, func() bool { return len(proc.In(s.Dir)) == 0 }); err != nil {
		return fmt.Errorf("these outlived the server: %v", proc.In(s.Dir))
	}
	return nil
}

// Poll asks until the answer is yes, at most for so long.
func Poll(ctx context.Context, long time.Duration, ask func() bool) error {
	ctx, stop := context.WithTimeout(ctx, long)
	defer stop()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !ask() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
	return nil
}

// listen opens a port for a sink.
func listen() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }

// Loopback returns an address of this machine's own that nobody else listens on, by its host: there are 16 million.
func Loopback() string {
	return fmt.Sprintf("127.%d.%d.%d:2525", 1+rand.IntN(250), rand.IntN(250), 1+rand.IntN(250))
}

// ErrNotHere says that a trial can't be done on this machine, and why. It is no failure.
var ErrNotHere = errors.New("not possible here")
