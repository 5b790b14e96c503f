package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"github.com/pabal-mta/mta/core/torture/proc"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pabal-mta/mta/core/admin"
)

// system is an mta that runs as a process of its own, with a home that holds its mta.hcl and all its state.
type system struct {
	t     testing.TB
	dir   string
	cmd   *exec.Cmd
	ended chan struct{} // closed when the process has ended
}

// newSystem makes the home of an mta with this configuration, in which ${NAME} stands for a value of vars.
func newSystem(t testing.TB, config string, vars map[string]string) *system {
	t.Helper()
	dir, err := os.MkdirTemp("", "mta-e2e-") // short: the paths of sockets have at most 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	s := &system{t: t, dir: dir}
	s.configure(config, vars)
	t.Cleanup(s.cleanUp)
	return s
}

// configure writes mta.hcl.
func (s *system) configure(config string, vars map[string]string) {
	s.t.Helper()
	text := os.Expand(config, func(name string) string { return vars[name] })
	if err := os.WriteFile(s.path("mta.hcl"), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *system) path(name string) string { return filepath.Join(s.dir, name) }

func (s *system) cleanUp() {
	if s.cmd != nil {
		s.kill()
	}
	if s.t.Failed() {
		log, _ := os.ReadFile(s.path("log"))
		s.t.Logf("the end of the log of %s:\n%s", s.dir, log[max(0, len(log)-6000):])
	}
	os.RemoveAll(s.dir)
}

// command prepares the program: this test binary, which is mta when it is told so.
func (s *system) command(args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "MTA_TEST_PROGRAM=1")
	return cmd
}

// mta runs one command to its end and returns what it printed and its exit code.
func (s *system) mta(stdin string, args ...string) (stdout, stderr string, code int) {
	s.t.Helper()
	var out, errs bytes.Buffer
	cmd := s.command(args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// must is mta for a command that has to end well.
func (s *system) must(stdin string, args ...string) string {
	s.t.Helper()
	out, errs, code := s.mta(stdin, args...)
	if code != 0 {
		s.t.Fatalf("mta %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// start starts the server and waits until it is ready.
func (s *system) start() {
	s.t.Helper()
	s.begin("serve")
	s.awaitReady()
}

// begin starts the server and does not wait for it.
func (s *system) begin(args ...string) {
	s.t.Helper()
	log, err := os.OpenFile(s.path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.cmd, s.ended = s.command(args...), make(chan struct{})
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func(cmd *exec.Cmd, ended chan struct{}) {
		_ = cmd.Wait() // ProcessState tells how it ended
		close(ended)
	}(s.cmd, s.ended)
}

func (s *system) awaitReady() {
	s.t.Helper()
	if !poll(func() bool { st, err := s.status(); return err == nil && st.Ready == "ok" || s.dead() }) || s.dead() {
		s.t.Fatal("the server did not become ready")
	}
}

func (s *system) dead() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// kill ends the server as a power cut would.
func (s *system) kill() {
	_ = s.cmd.Process.Kill()
	<-s.ended
}

// stop ends the server in order. It fails unless the exit code is 0 and nothing is left.
func (s *system) stop() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-s.ended:
	case <-time.After(patience):
		s.t.Fatal("the server did not stop")
	}
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		s.t.Errorf("the server ended with %s", s.cmd.ProcessState)
	}
	s.gone()
}

// gone waits until no process lives in the home of the system.
func (s *system) gone() {
	s.t.Helper()
	if !poll(func() bool { return len(proc.In(s.dir)) == 0 }) {
		s.t.Fatalf("these outlived the server: %v", proc.In(s.dir))
	}
}

func (s *system) client() *admin.Client { return admin.NewClient(s.path("var/admin.sock")) }

func (s *system) status() (admin.Status, error) { return s.client().Status(context.Background()) }

// plugin returns how a plugin is doing.
func (s *system) plugin(name string) admin.PluginStatus {
	s.t.Helper()
	st, err := s.status()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, p := range st.Plugins {
		if p.Name == name {
			return p
		}
	}
	s.t.Fatalf("there is no plugin %q", name)
	return admin.PluginStatus{}
}

// queued lists the queue.
func (s *system) queued() (list []admin.Message) {
	s.t.Helper()
	err := s.client().List(context.Background(), admin.Selection{}, func(m admin.Message) error { list = append(list, m); return nil })
	if err != nil {
		s.t.Fatal(err)
	}
	return list
}

// emptied waits until the queue is empty.
func (s *system) emptied() {
	s.t.Helper()
	if !poll(func() bool {
		st, err := s.status()
		return err == nil && st.Queue.Waiting+st.Queue.Active+st.Queue.Held == 0
	}) {
		s.t.Fatalf("the queue still holds %+v", s.queued())
	}
	if out := s.must("", "queue", "list", "-json"); out != "" {
		s.t.Fatalf("mta queue list -json says %s", out)
	}
}

// mailbox waits until exactly n messages lie in the Maildir of an account of example.test and returns them.
func (s *system) mailbox(user string, n int) (list []string) {
	s.t.Helper()
	pattern := s.path("var/mail/example.test/" + user + "/new/*")
	if !poll(func() bool { files, _ := filepath.Glob(pattern); return len(files) >= n }) {
		s.t.Fatalf("%s has not got %d messages", user, n)
	}
	files, _ := filepath.Glob(pattern)
	if len(files) != n {
		s.t.Fatalf("%s has %d messages, not %d", user, len(files), n)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			s.t.Fatal(err)
		}
		list = append(list, string(text))
	}
	return list
}

// freePorts returns addresses of 127.0.0.1 on which nothing listens.
func freePorts(t testing.TB, n int) (list []string) {
	t.Helper()
	for range n {
		l, err := listenFree()
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		list = append(list, l.Addr().String())
	}
	return list
}

// sizeFrom returns the number in an environment variable, which makes a test larger than a plain "go test" wants it.
func sizeFrom(t testing.TB, name string, plain int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return plain
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatal(fmt.Errorf("%s=%q is no number", name, text))
	}
	return n
}

// makeMailbox makes a Maildir: where accounts are not named, a mailbox is where a folder is.
func makeMailbox(t testing.TB, s *system, name string) {
	t.Helper()
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(s.path("var/mail/"+name+"/"+sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

// onlyFile reads the one file that matches.
func onlyFile(t testing.TB, pattern string) []byte {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) != 1 {
		t.Fatalf("%d files match %s, %v", len(files), pattern, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	return b
}
