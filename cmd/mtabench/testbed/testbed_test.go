//go:build linux

package testbed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

const (
	testDir = "MTABENCH_TEST_DIR"
	mark    = "98761.234" // of a process that is left behind
)

// TestMain lets the test binary be the processes that Enter starts.
func TestMain(m *testing.M) {
	dir := os.Getenv(testDir)
	switch {
	case dir == "":
		os.Exit(m.Run())
	case Inside():
		if err := errors.Join(lookAround(), leaveTraces()); err != nil {
			fmt.Println(err)
			os.Exit(3)
		}
		os.Exit(42)
	}
	code, err := Enter(Plan{Dir: dir, Usr: []string{filepath.Join(dir, "usr"), "/no/such/folder"}, Users: []string{"root", "mtabench-user"}})
	if err != nil {
		fmt.Println(err)
	}
	os.Exit(code)
}

func lookAround() error {
	var wrong []error
	faces, err := net.Interfaces()
	if err != nil || len(faces) != 1 || faces[0].Name != "lo" || faces[0].Flags&net.FlagUp == 0 {
		wrong = append(wrong, fmt.Errorf("interfaces: %v, %w", faces, err))
	}
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil || !strings.Contains(string(passwd), "\nmtabench-user:x:64901:64901:") || strings.Count("\n"+string(passwd), "\nroot:") != 1 {
		wrong = append(wrong, fmt.Errorf("accounts: %w, %s", err, passwd))
	}
	if out, err := exec.Command("/usr/bin/mtabench-peer").Output(); string(out) != "a peer\n" {
		wrong = append(wrong, fmt.Errorf("the program over /usr: %q, %w", out, err))
	}
	if err := os.Mkdir(filepath.Join(Groups(os.Getenv(testDir)), "left"), 0o755); err != nil {
		wrong = append(wrong, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := Serve(ctx); err != nil {
		return errors.Join(append(wrong, err)...)
	}
	mx, err := net.DefaultResolver.LookupMX(ctx, "sink.test")
	if err != nil || len(mx) != 1 || mx[0].Host != "mx.sink.test." {
		wrong = append(wrong, fmt.Errorf("MX of sink.test: %v, %w", mx, err))
	}
	return errors.Join(wrong...)
}

// leaveTraces writes where peers write, and leaves a process behind.
func leaveTraces() error {
	for _, d := range append(covered, "/usr/bin") {
		if err := os.WriteFile(filepath.Join(d, "mtabench-trace"), nil, 0o600); err != nil {
			return err
		}
	}
	return exec.Command("sleep", mark).Start()
}

func TestGroundIsOurOwnAndLeavesNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("namespaces need root")
	}
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "usr/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "usr/bin/mtabench-peer"), []byte("#!/bin/sh\necho a peer\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), testDir+"="+dir)
	out, err := cmd.CombinedOutput()
	for _, lacks := range []string{"no namespaces", "can't be mounted", "can't be covered", "no control group"} {
		if strings.Contains(string(out), lacks) {
			t.Skipf("this machine does not let us: %s", out)
		}
	}
	if cmd.ProcessState.ExitCode() != 42 {
		t.Fatalf("%v: %s", err, out)
	}
	for _, d := range append(covered, "/usr/bin") {
		if _, err := os.Stat(filepath.Join(d, "mtabench-trace")); err == nil {
			t.Errorf("what was written in %s is there", d)
		}
	}
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		if line, err := os.ReadFile(path); err == nil && strings.Contains(string(line), mark) {
			t.Errorf("a process is left: %q", line)
		}
	}
	if left, err := filepath.Glob("/sys/fs/cgroup/*/" + groupsName(dir)); err != nil || len(left) > 0 {
		t.Errorf("a control group is left: %v, %v", left, err)
	}
}

func TestOnlyRootEnters(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("we are root")
	}
	if _, err := Enter(Plan{Dir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "needs root") {
		t.Errorf("%v", err)
	}
}

func TestNamesOfTheGround(t *testing.T) {
	for _, test := range []struct {
		name  string
		kind  uint16
		want  string
		known bool
	}{
		{"sink.test.", dns.TypeMX, "10 mx.sink.test.", true},
		{"SINK.test.", dns.TypeA, "127.0.0.1", true},
		{"mx.sink.test.", dns.TypeMX, "", true},
		{"mx.sink.test.", dns.TypeAAAA, "", true},
		{"localhost.", dns.TypeA, "127.0.0.1", true},
		{"1.0.0.127.in-addr.arpa.", dns.TypePTR, "localhost.", true},
		{"_25._tcp.mx.sink.test.", dns.TypeTLSA, "", false},
		{"example.com.", dns.TypeMX, "", false},
	} {
		record, known := lookUp(dns.Question{Name: test.name, Qtype: test.kind, Qclass: dns.ClassINET})
		text := ""
		if record != nil {
			text = strings.TrimPrefix(record.String(), record.Header().String())
		}
		if text != test.want || known != test.known {
			t.Errorf("%s %s: %q, %v", test.name, dns.TypeToString[test.kind], text, known)
		}
	}
}

func TestAccountsAreAddedOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(path, []byte("root:x:0:0::/:/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, name := range []string{"root", "oot", "postfix"} {
			if err := addLine(path, name, name+":new\n"); err != nil {
				t.Fatal(err)
			}
		}
	}
	text, err := os.ReadFile(path)
	if err != nil || string(text) != "root:x:0:0::/:/bin/sh\noot:new\npostfix:new\n" {
		t.Errorf("%q, %v", text, err)
	}
}
