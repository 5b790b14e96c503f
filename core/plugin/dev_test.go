package plugin

import (
	"bytes"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// said is what an author reads.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *said) times(words string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.text.String(), words)
}

func (s *said) await(t *testing.T, words string, n int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); s.times(words) < n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%q was not said %d times: %s", words, n, &s.text)
		}
	}
}

// byHand starts the faulty plugin as an author would.
func byHand(t *testing.T, d *Dev) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "MODE=good", "MTA_PLUGIN=mta.plugin.v1", "PLUGIN_UNIX_SOCKET_DIR="+d.dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// begin starts a host in the background, as a server's start and a reload do.
func begin(t *testing.T, s Spec) <-chan *Host {
	t.Helper()
	up := make(chan *Host, 1)
	go func() {
		h, err := Start(t.Context(), []Spec{s}, Options{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Error(err)
		}
		up <- h
	}()
	return up
}

func work(t *testing.T, h *Host) {
	t.Helper()
	if v, err := rcpt(t.Context(), h.Plugin("faulty"), "limit"); err != nil || v.Reply.Text != "3" {
		t.Error(v, err)
	}
}

// TestDevGenerations: a process is configured once, so a reload waits for another one, and so does a server that finds a
// process of an earlier one.
func TestDevGenerations(t *testing.T) {
	var s said
	name := "test-" + strings.ToLower(t.Name())
	d, err := NewDev(name, &s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(d.dir) })
	if _, err := NewDev(name, &s); err == nil || !strings.Contains(err.Error(), "another server") {
		t.Error(err)
	}
	first := begin(t, d.Spec(spec(t, "")))
	s.await(t, "is waited for", 1)
	byHand(t, d)
	a := <-first
	work(t, a)

	second := begin(t, d.Spec(spec(t, ""))) // a reload
	s.await(t, "is waited for", 2)
	work(t, a)
	byHand(t, d)
	b := <-second
	a.Stop(t.Context())
	work(t, b)

	if err := d.Close(); err != nil { // the server is killed, and started again
		t.Fatal(err)
	}
	again, err := NewDev(name, &s)
	if err != nil {
		t.Fatal(err)
	}
	third := begin(t, again.Spec(spec(t, "")))
	s.await(t, "configured already", 1)
	s.await(t, "is waited for", 3)
	byHand(t, again)
	c := <-third
	work(t, c)
	for _, h := range []*Host{b, c} {
		h.Stop(t.Context())
	}
}
