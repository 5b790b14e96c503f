package main

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/plugintest"
	"github.com/pabal-mta/mta/sdk/schema"
)

// patience bounds every wait for another process.
const patience = time.Minute

// postgres returns the configuration that reaches a PostgreSQL, and a function that stops and starts it.
func postgres(t *testing.T) (config map[string]string, ctl func(string)) {
	t.Helper()
	command := os.Getenv("MTA_TEST_POSTGRES_CTL")
	if command == "" {
		t.Skip("there is no PostgreSQL to stop: .ci/postgres sets MTA_TEST_POSTGRES_CTL")
	}
	config = databases(t)["postgres"]
	if config == nil {
		t.Fatal("MTA_TEST_POSTGRES names no PostgreSQL")
	}
	config["query"] = joined
	ctl = func(word string) {
		t.Helper()
		cmd := exec.Command("sh", "-c", command+" "+word)
		cmd.Dir = "/" // the user that PostgreSQL runs as may not stand here
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s PostgreSQL: %v\n%s", word, err, out)
		}
	}
	return config, ctl
}

// TestPostgresIsAway wants the plugin to start without its database, to know nobody then, and to find the accounts when it
// is there; a query that the database refuses is told all the same.
func TestPostgresIsAway(t *testing.T) {
	config, ctl := postgres(t)
	ann := mail.Login{User: "ann@here.example", Password: "tulip"}
	ctl("stop")
	p := plugintest.New(t, sdk.Of(plugin()), config)
	if id, err := p.Authenticate(t.Context(), ann); err == nil || errors.Is(err, mail.ErrBadLogin) {
		t.Errorf("without its database: %+v, %v", id, err)
	}
	ctl("start")
	if id, err := p.Authenticate(t.Context(), ann); err != nil || len(id.Addresses) != 2 {
		t.Errorf("when it is there: %+v, %v", id, err)
	}
	if _, err := newSQLAuth(t.Context(), Config{Driver: "postgres", DSN: schema.Secret(config["dsn"]), Query: "SELECT nothing FROM nowhere"}, nil); err == nil {
		t.Error("it takes a query that the database refuses")
	}
}

// serverConfig is a server whose users are in a database.
const serverConfig = `hostname = "mx.here.example"
data_dir = "./var"

listener "submission" {
  address       = [%q]
  auth          = plugin.accounts
  insecure_auth = true
}

plugin "accounts" {
  source = %q
  config {
    driver = "postgres"
    dsn    = %q
    query  = %q
  }
}

route "rest" {
  mx = true
}
`

// TestPostgresGoesAndComesBack logs in at a server, by SMTP: 235, 454 while PostgreSQL is stopped, and 235 again.
func TestPostgresGoesAndComesBack(t *testing.T) {
	config, ctl := postgres(t)
	address := serve(t, config)
	steps := []struct{ do, password, want string }{
		{"", "tulip", "235 "}, {"", "rose", "535 "}, {"stop", "tulip", "454 "}, {"", "rose", "454 "}, {"start", "tulip", "235 "}, {"", "rose", "535 "},
	}
	for i, step := range steps {
		if step.do != "" {
			ctl(step.do)
		}
		if got := login(t, address, "ann@here.example", step.password); !strings.HasPrefix(got, step.want) {
			t.Errorf("step %d, %+v: %s", i, step, got)
		}
	}
}

// serve runs a server until the end of the test and returns where it takes logins.
func serve(t *testing.T, config map[string]string) (address string) {
	t.Helper()
	dir := t.TempDir()
	for program, source := range map[string]string{"mta": "../../cmd/mta", "sqlauth": "."} {
		build := exec.Command("go", "build", "-o", filepath.Join(dir, program), ".")
		build.Dir = source
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = free.Addr().String()
	text := fmt.Sprintf(serverConfig, address, "./sqlauth", config["dsn"], config["query"])
	if err := errors.Join(free.Close(), os.WriteFile(filepath.Join(dir, "mta.hcl"), []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	mta := func(args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(dir, "mta"), args...)
		cmd.Dir = dir
		return cmd
	}
	if out, err := mta("plugin", "pin", "accounts").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	server := mta("serve")
	var log strings.Builder
	server.Stdout, server.Stderr = &log, &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(server.Process.Signal(syscall.SIGTERM), server.Wait()); err != nil || t.Failed() {
			t.Errorf("the server: %v\n%s", err, &log)
		}
	})
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return address
		}
		if time.Now().After(end) {
			t.Fatal("the server did not start: ", err)
		}
	}
}

// login returns the server's answer to a login.
func login(t *testing.T, address, user, password string) string {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	in := bufio.NewReader(conn)
	line := func() string {
		for {
			s, err := in.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if len(s) > 3 && s[3] == ' ' {
				return strings.TrimSpace(s)
			}
		}
	}
	line()
	fmt.Fprint(conn, "EHLO client.example\r\n")
	line()
	fmt.Fprintf(conn, "AUTH PLAIN %s\r\n", base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+password)))
	return line()
}
