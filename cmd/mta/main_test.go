package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pabal-mta/mta/core/admin"
)

// TestMain lets the test binary be the program: as `mta` in the scripts, and as the process of a built-in plugin.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "plugin" && (os.Args[2] == "serve" || os.Args[2] == "exec") {
		main()
	}
	switch os.Getenv("MTA_TEST_PLUGIN") {
	case "bee":
		beBee()
		return
	case "stamp":
		beStamp()
		return
	case "sorter":
		beSorter()
		return
	case "moody":
		beMoody()
		return
	case "trades":
		beTrades()
		return
	case "glass":
		beGlass()
		return
	case "gone":
		beGone()
		return
	}
	if os.Getenv("MTA_TEST_PROGRAM") == "1" {
		main()
	}
	testscript.Main(m, map[string]func(){"mta": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			self, err := os.Executable()
			env.Setenv("MTA_TEST_BINARY", self)
			return err
		},
		Condition: func(name string) (bool, error) {
			if name != "python" {
				return false, fmt.Errorf("there is no condition %q", name)
			}
			return hasPython() == nil, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"ports": cmdPorts, "expand": cmdExpand, "up": cmdUp, "smtp": cmdSMTP, "await": cmdAwait,
			"capture": cmdCapture, "until": cmdUntil, "houserules": cmdHouseRules,
			"build": cmdBuild, "page": cmdPage, "tell": cmdTell, "mails": cmdMails, "held": cmdHeld, "processes": cmdProcesses,
			"service": cmdService, "pyfilter": cmdPyfilter,
			"mailsystem": cmdMailSystem, "mailwire": cmdMailWire, "maildeliver": cmdMailDeliver,
		},
	})
}

// patience bounds every wait for another process. It is long because a loaded machine is slow, not because it is needed.
const patience = time.Minute

// poll asks until the answer is yes.
func poll(ask func() bool) bool {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ask() {
			return true
		}
	}
	return false
}

// ports NAME...: sets each variable to a free port of 127.0.0.1.
func cmdPorts(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range args {
		ts.Setenv(name, freePort(ts))
	}
}

func freePort(ts *testscript.TestScript) string {
	l, err := listenFree()
	ts.Check(err)
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	ts.Check(err)
	return port
}

// expand FROM TO: copies a file with ${NAME} replaced by variables of the script.
func cmdExpand(ts *testscript.TestScript, neg bool, args []string) {
	text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o600))
}

// up [SOCKET]: waits until the server on the admin socket (default var/admin.sock) is ready.
func cmdUp(ts *testscript.TestScript, neg bool, args []string) {
	socket := "var/admin.sock"
	if len(args) > 0 {
		socket = args[0]
	}
	c := admin.NewClient(ts.MkAbs(socket))
	ready := poll(func() bool {
		s, err := c.Status(context.Background())
		return err == nil && s.Ready == "ok"
	})
	if ready == neg {
		ts.Fatalf("ready: %v", ready)
	}
}

// await PATTERN [N]: waits until exactly N files (default 1) match. With !, until none does.
func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	want := 1
	if len(args) == 2 {
		_, err := fmt.Sscan(args[1], &want)
		ts.Check(err)
	}
	if neg {
		want = 0
	}
	var found []string
	if !poll(func() bool {
		found, _ = filepath.Glob(ts.MkAbs(args[0]))
		return len(found) == want
	}) {
		ts.Fatalf("%d files match %s, not %d: %v", len(found), args[0], want, found)
	}
}

// smtp ADDRESS FILE: plays a dialogue. A line "C: text" is sent; "S: text" must be the start of the next line received,
// where ... at its end is left out; "S: -" reads the rest of the connection.
func cmdSMTP(ts *testscript.TestScript, neg bool, args []string) {
	conn, err := net.DialTimeout("tcp", args[0], patience)
	ts.Check(err)
	defer conn.Close()
	ts.Check(conn.SetDeadline(time.Now().Add(patience)))
	said := newLines(conn)
	for line := range strings.Lines(ts.ReadFile(args[1])) {
		line = strings.TrimSuffix(line, "\n")
		switch text, isClient := strings.CutPrefix(line, "C: "); {
		case line == "" || strings.HasPrefix(line, "#"):
		case isClient:
			_, err := fmt.Fprintf(conn, "%s\r\n", text)
			ts.Check(err)
		default:
			want := strings.TrimPrefix(line, "S: ")
			got, err := said.next()
			if err != nil || !strings.HasPrefix(got, want) {
				ts.Fatalf("want %q, got %q, %v", want, got, err)
			}
		}
	}
}

// notShort leaves a test out of "go test -short": it builds programs of its own or reads very many mails, so that the race
// detector would see little in much time.
func notShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("not in -short")
	}
}
