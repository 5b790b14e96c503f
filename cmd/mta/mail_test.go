package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pabal-mta/mta/cmd/mta/useragent/mailtest"
)

// mailsystem ACCOUNT...: starts an IMAP and a submission server in memory, and sets the environment of `mta mail` to it.
// It ends with the script.
func cmdMailSystem(ts *testscript.TestScript, neg bool, args []string) {
	s, err := mailtest.Start(args...)
	ts.Check(err)
	ts.Defer(func() { s.Close() })
	for name, value := range map[string]string{
		"MTA_MAIL_IMAP": s.IMAP, "MTA_MAIL_SUBMIT": s.SMTP, "MTA_PASSWORD": mailtest.Password, "SENT": mailtest.SentFolder,
	} {
		ts.Setenv(name, value)
	}
	systems.Store(ts.MkAbs("."), s)
}

// systems are the mail systems of the scripts that run, by their directory.
var systems sync.Map

func mailSystem(ts *testscript.TestScript) *mailtest.Server {
	s, ok := systems.Load(ts.MkAbs("."))
	if !ok {
		ts.Fatalf("no mailsystem was started")
	}
	return s.(*mailtest.Server)
}

// mailwire N FILE: writes the Nth message that came over the wire into a file, with lines that end in LF.
func cmdMailWire(ts *testscript.TestScript, neg bool, args []string) {
	sent := mailSystem(ts).Sent()
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	if n > len(sent) {
		ts.Fatalf("only %d messages came over the wire", len(sent))
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), bytes.ReplaceAll(sent[n-1].Data, []byte("\r\n"), []byte("\n")), 0o600))
}

// maildeliver ACCOUNT FILE: puts a message into an inbox; \e in the file is ESC.
func cmdMailDeliver(ts *testscript.TestScript, neg bool, args []string) {
	text := strings.NewReplacer(`\e`, "\x1b", "\n", "\r\n").Replace(ts.ReadFile(args[1]))
	ts.Check(mailSystem(ts).Deliver(args[0], []byte(text)))
}

// TestHarmless: the words of a server reach the terminal without what moves the cursor, and the exit code stays.
func TestHarmless(t *testing.T) {
	err := harmless(fmt.Errorf("%w", unreachable{errors.New("\x1b[2J\u202e\r\nno")}))
	if got := err.Error(); got != `\x1b[2J\u202e`+"\nno" || exitCode(err) != exitUnreachable || harmless(nil) != nil {
		t.Errorf("%q, exit code %d", got, exitCode(err))
	}
}

// TestWatch: mail that comes while it watches is told of at once, as a line or as JSON, and nothing of what was there.
func TestWatch(t *testing.T) {
	t.Parallel()
	s, err := mailtest.Start("ann@example.test")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	deliver := func(subject string) {
		if err := s.Deliver("ann@example.test", []byte("From: Bob <bob@example.test>\r\nSubject: "+subject+"\r\n\r\nx\r\n")); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	deliver("old")
	for _, args := range [][]string{{"-count", "1", "-json"}, {"-count", "2"}} {
		cmd := exec.Command(self, append([]string{"mail", "watch"}, args...)...)
		cmd.Env = append(os.Environ(), "MTA_TEST_PROGRAM=1", "HOME="+t.TempDir(), "MTA_MAIL_IMAP="+s.IMAP, "MTA_MAIL_USER=ann@example.test", "MTA_PASSWORD="+mailtest.Password)
		var told strings.Builder
		cmd.Stdout = &told
		errs, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		late := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		if line, err := newLines(errs).next(); err != nil || line != "watching INBOX" {
			t.Errorf("%q, %v", line, err)
		}
		deliver("new")
		if args[1] == "2" {
			deliver("newer")
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("watch %v: %v", args, err)
		}
		late.Stop()
		want := `"from":"Bob","address":"bob@example.test","to":[],"subject":"new"`
		if args[1] == "2" {
			want = " newer "
		}
		if got := told.String(); !strings.Contains(got, want) || strings.Contains(got, "old") || fmt.Sprint(strings.Count(got, "\n")) != args[1] {
			t.Errorf("watch %v tells\n%s", args, got)
		}
	}
}
