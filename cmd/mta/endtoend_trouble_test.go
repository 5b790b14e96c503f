package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestStartFails starts a server where it can't run. The exit code is 1, a person can read why and what to do, nothing is
// left running, and a server that is already there is not disturbed.
func TestStartFails(t *testing.T) {
	t.Parallel()
	ports := freePorts(t, 4)
	vars := map[string]string{"MX": ports[0], "ONE": ports[1], "TWO": ports[2]}
	first := newSystem(t, relayConfig, vars)
	first.start()
	vars["MX"] = ports[3]
	for _, c := range []struct {
		name    string
		prepare func(t *testing.T, s *system)
		want    []string // in what it says
	}{
		{"the port is taken", func(_ *testing.T, s *system) {
			s.configure(relayConfig, map[string]string{"MX": ports[0], "ONE": ports[1], "TWO": ports[2]})
		}, []string{`listener "mx"`, ports[0] + " is taken", "another program listens there", "mta status"}},
		{"the port of the console is taken", func(_ *testing.T, s *system) {
			s.configure(relayConfig+"admin {\n  listen = \"${WEB}\"\n}\n", map[string]string{"MX": ports[3], "ONE": ports[1], "TWO": ports[2], "WEB": ports[0]})
		}, []string{"admin.listen", ports[0] + " is taken"}},
		{"the data directory is another server's", func(_ *testing.T, s *system) {
			s.configure(strings.Replace(relayConfig, `"var"`, `"`+first.path("var")+`"`, 1), vars)
		}, []string{"another mta is running on " + first.path("var/queue"), "pid"}},
		{"a file is where the data directory should be", func(t *testing.T, s *system) {
			inTheWay(t, s, "var")
		}, []string{"data_dir", "not a directory"}},
		{"a file is where the queue should be", func(t *testing.T, s *system) {
			inTheWay(t, s, "var/queue")
		}, []string{"var/queue"}},
		{"a file is where the admin socket should be", func(t *testing.T, s *system) {
			inTheWay(t, s, "var/admin.sock")
		}, []string{"admin socket", "a file that is no socket is in the way"}},
		{"the data directory may not be written", func(t *testing.T, s *system) {
			if os.Geteuid() == 0 {
				t.Skip("root may write everywhere")
			}
			if err := os.Mkdir(s.path("var"), 0o500); err != nil {
				t.Fatal(err)
			}
		}, []string{"/var/queue", "permission denied"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSystem(t, relayConfig, vars)
			c.prepare(t, s)
			failsToStart(t, s, c.want)
			if _, err := net.Dial("tcp", ports[3]); err == nil {
				t.Error("it listens all the same")
			}
		})
	}
	if _, err := first.status(); err != nil {
		t.Errorf("the first server was disturbed: %v", err)
	}
	first.stop()
}

// inTheWay makes a file where something else is wanted.
func inTheWay(t *testing.T, s *system, name string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(s.path(name)), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path(name), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// failsToStart runs a server that must end at once, and looks at what it says.
func failsToStart(t *testing.T, s *system, want []string) {
	t.Helper()
	_, errs, code := s.mta("", "serve", "-log-level", "error")
	if code != 1 {
		t.Errorf("exit code %d", code)
	}
	for _, want := range want {
		if !strings.Contains(errs, want) {
			t.Errorf("it says nothing of %q:\n%s", want, errs)
		}
	}
	if strings.Contains(errs, "goroutine ") || strings.Contains(errs, "panic") {
		t.Errorf("that is no text for an operator:\n%s", errs)
	}
	s.gone()
}
