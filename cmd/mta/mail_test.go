package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

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
