//go:build linux

package peer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pabal-mta/mta/cmd/mtabench/meter"
)

// Bounds of what a peer may take.
const (
	startTime = time.Minute
	stopTime  = 30 * time.Second
	flushTime = 2 * time.Minute
)

// Server is a peer that runs.
type Server struct {
	*Peer
	Place   Place
	Group   *meter.Group
	Startup time.Duration // from the start to the first 220
	process *exec.Cmd
	log     *os.File
}

// Start sets the peer up below dir, starts it in a control group below groups, and returns when it greets.
func (p *Peer) Start(ctx context.Context, dir, groups string, sink int) (*Server, error) {
	if p.Name == Direct {
		g, err := meter.NewGroup(groups, Direct)
		return &Server{Peer: p, Place: Place{Run: dir, Port: sink}, Group: g}, err
	}
	at, err := p.place(dir, sink)
	if err != nil {
		return nil, err
	}
	s := &Server{Peer: p, Place: at}
	return s, s.start(ctx, groups)
}

// Again starts the server on the queue that it has. It must have been stopped.
func (s *Server) Again(ctx context.Context, groups string) error { return s.start(ctx, groups) }

func (s *Server) start(ctx context.Context, groups string) (err error) {
	if s.Group, err = meter.NewGroup(groups, strings.ReplaceAll(s.Name, "/", "-")); err != nil {
		return err
	}
	if s.log, err = os.OpenFile(filepath.Join(s.Place.Run, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644); err != nil {
		return err
	}
	begun := time.Now()
	argv := s.command(s.Place)
	s.process = exec.Command(argv[0], argv[1:]...)
	s.process.Stdout, s.process.Stderr = s.log, s.log
	s.process.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := s.Group.Start(s.process); err != nil {
		return fmt.Errorf("%s can't be started: %w", s.Name, err)
	}
	if s.daemon {
		if err := s.process.Wait(); err != nil {
			return fmt.Errorf("%s did not start: %w%s", s.Name, err, s.lastWords())
		}
	}
	if err := s.awaitGreeting(ctx, begun.Add(startTime)); err != nil {
		return err
	}
	s.Startup = time.Since(begun)
	return nil
}

// Alive is an error when the server has ended by itself.
func (s *Server) Alive() error {
	if s.process != nil && len(s.Group.Processes()) == 0 {
		return fmt.Errorf("%s has ended by itself%s", s.Name, s.lastWords())
	}
	return nil
}

// Address is where the server listens.
func (s *Server) Address() string { return fmt.Sprintf("127.0.0.1:%d", s.Place.Port) }

func (s *Server) awaitGreeting(ctx context.Context, until time.Time) error {
	for ; time.Now().Before(until) && ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		if greets(s.Address()) {
			return nil
		}
		if len(s.Group.Processes()) == 0 {
			break
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%s does not greet on %s%s", s.Name, s.Address(), s.lastWords())
}

func greets(address string) bool {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	code := make([]byte, 3)
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return false
	}
	_, err = io.ReadFull(c, code)
	if err != nil || string(code) != "220" {
		return false
	}
	_, err = c.Write([]byte("QUIT\r\n"))
	return err == nil
}

// lastWords are the last lines of the server's log, for an error.
func (s *Server) lastWords() string {
	text, err := os.ReadFile(filepath.Join(s.Place.Run, "log"))
	if err != nil || len(text) == 0 {
		return ""
	}
	if len(text) > 1000 {
		text = text[len(text)-1000:]
	}
	return "; the end of its log:\n" + string(text)
}

// Stop stops the server, and ends what it started. Its queue stays where it is.
func (s *Server) Stop() {
	switch {
	case s.process == nil:
	case s.stop != nil:
		s.run(context.Background(), stopTime, s.stop(s.Place))
	default:
		_ = s.process.Process.Signal(syscall.SIGTERM) // it may have ended
		go func() { _ = s.process.Wait() }()          // how it ended is in its log
	}
	s.Group.End(stopTime)
	if s.log != nil {
		s.log.Close()
	}
}

// Clear removes all that the server kept. It must have been stopped.
func (s *Server) Clear() error {
	if s.process == nil {
		return nil
	}
	return os.RemoveAll(s.Place.Run)
}

// Flush makes the server try all of its queue again.
func (s *Server) Flush(ctx context.Context) {
	if s.flush != nil {
		s.run(ctx, flushTime, s.flush(s.Place))
	}
}

// Retry has the server try all queued mail for a domain again. Only ours can be asked for that.
func (s *Server) Retry(ctx context.Context, domain string) {
	if s.retry != nil {
		s.run(ctx, flushTime, s.retry(s.Place, domain))
	}
}

// List makes the server list what is queued of the generator's mail until ctx ends, and returns how long it took to the
// first message and how many came.
func (s *Server) List(ctx context.Context) (first time.Duration, messages int, err error) {
	if s.list == nil {
		return 0, 0, fmt.Errorf("%s is not asked for lists", s.Name)
	}
	argv := s.list(s.Place)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stderr = s.log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, 0, err
	}
	begun := time.Now()
	if err := s.Group.Start(cmd); err != nil {
		return 0, 0, err
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if !bytes.Contains(lines.Bytes(), []byte("@src.test")) {
			continue // the head
		}
		if messages++; messages == 1 {
			first = time.Since(begun)
		}
	}
	if err := cmd.Wait(); err != nil && ctx.Err() == nil {
		return first, messages, fmt.Errorf("%v: %w", argv, err)
	}
	return first, messages, nil
}

// run runs a command of the peer in its group: what it costs is the peer's cost.
func (s *Server) run(ctx context.Context, limit time.Duration, argv []string) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = s.log, s.log
	if err := s.Group.Start(cmd); err != nil {
		fmt.Fprintln(s.log, err)
		return
	}
	if err := cmd.Wait(); err != nil {
		fmt.Fprintf(s.log, "%v: %v\n", argv, err)
	}
}

// Queued is how many messages the server still has; -1 when it can't be told.
func (s *Server) Queued() int {
	if s.process == nil {
		return 0
	}
	n, err := s.queued(s.Place)
	if err != nil {
		return -1
	}
	return n
}

func statusQueued(out []byte) (int, error) {
	var status struct {
		Queue *struct{ Waiting, Active, Held int }
	}
	if err := json.Unmarshal(out, &status); err != nil {
		return 0, err
	}
	if status.Queue == nil {
		return 0, errors.New("mta status -json has no queue")
	}
	return status.Queue.Waiting + status.Queue.Active + status.Queue.Held, nil
}
