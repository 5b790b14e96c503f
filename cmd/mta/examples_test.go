package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/python"
)

// aroundExample makes a configuration of what an example's documentation shows.
const aroundExample = `hostname = "mx.example.com"
data_dir = "./var"
listener "mx" {
  address = ["127.0.0.1:2525"]
}
plugin "mailboxes" {
  source = "builtin:maildir"
  config {
    path = "./var/mail/{domain}/{user}"
  }
}
route "here" {
  domains = ["here.example"]
  store   = plugin.mailboxes
}
`

// TestExamples wants mta check to take the configuration that each example in Go shows in its documentation. With
// MTA_TEST_EXAMPLES, as in .ci/run, each has to pass all checks of mta plugin check, too.
func TestExamples(t *testing.T) {
	notShort(t)
	t.Setenv("PROVIDER_PASSWORD", "x")
	programs, err := filepath.Glob("../../examples/*/main.go")
	if err != nil || len(programs) < 7 {
		t.Fatal(programs, err)
	}
	thorough := os.Getenv("MTA_TEST_EXAMPLES") != ""
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/bounces" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer service.Close()
	for _, program := range programs {
		example := filepath.Dir(program)
		t.Run(filepath.Base(example), func(t *testing.T) {
			if _, err := os.Stat(filepath.Join(example, "go.mod")); err == nil && !thorough {
				t.Skip("a module of its own, which may have to be fetched: .ci/run sets MTA_TEST_EXAMPLES")
			}
			dir := t.TempDir()
			binary := filepath.Join(dir, filepath.Base(example))
			build := exec.Command("go", "build", "-o", binary, ".")
			build.Dir = example
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			shown := shownConfig(t, program)
			block := regexp.MustCompile(`(?m)^plugin "(\w+)"`).FindStringSubmatch(shown)
			shown = regexp.MustCompile(`source *= "[^"]*"`).ReplaceAllString(shown, `source = "`+binary+`"`)
			shown = regexp.MustCompile(`https://[a-z.]*example`).ReplaceAllString(shown, service.URL)
			shown = strings.ReplaceAll(shown, "/var/lib/mta-archive", filepath.Join(dir, "kept"))
			shown = regexp.MustCompile(`driver *= "postgres"\s+dsn *= .*`).ReplaceAllString(shown, "driver = \"sqlite\"\ndsn = \""+filepath.Join(dir, "db")+`"`)
			if strings.Contains(shown, `listener "mx"`) || block == nil {
				t.Fatalf("the documentation shows\n%s", shown)
			}
			if err := os.WriteFile(filepath.Join(dir, "mta.hcl"), []byte(aroundExample+shown), 0o600); err != nil {
				t.Fatal(err)
			}
			mta(t, dir, 0, "plugin", "pin", block[1])
			mta(t, dir, 0, "check", "-config", "mta.hcl")
			if thorough && filepath.Base(example) != "sqlauth" { // its database has no table
				checked(t, dir, binary, "-config", "mta.hcl")
			}
		})
	}
}

// shownConfig returns what follows "In mta.hcl:" in a program's documentation.
func shownConfig(t *testing.T, program string) string {
	src, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(src), "// In mta.hcl:\n//\n")
	if !found {
		t.Fatal("the documentation shows no configuration")
	}
	var b strings.Builder
	for line := range strings.Lines(after) {
		code, isCode := strings.CutPrefix(line, "//\t")
		if !isCode && strings.TrimSpace(line) != "//" {
			break
		}
		if isCode {
			b.WriteString(code)
		}
	}
	return b.String()
}

// service ADDRESS: the HTTP service of the examples. POST /login knows ann@example.test with the password tulip, and
// POST /bounces adds what is posted to the file posted. While there is a file named down, it is in trouble.
func cmdService(ts *testscript.TestScript, neg bool, args []string) {
	listener, err := net.Listen("tcp", args[0])
	ts.Check(err)
	down, posted := ts.MkAbs("down"), ts.MkAbs("posted")
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		var q struct{ User, Password string }
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || q.User != "ann@example.test" || q.Password != "tulip" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, `{"user": "ann@example.test", "addresses": ["sales@example.test"]}`)
	})
	mux.HandleFunc("POST /bounces", func(w http.ResponseWriter, r *http.Request) {
		f, err := os.OpenFile(posted, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err == nil {
			_, err = fmt.Fprintf(f, "%s ", r.Header.Get("Authorization"))
		}
		if err == nil {
			_, err = io.Copy(f, r.Body)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := os.Stat(down); err == nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		mux.ServeHTTP(w, r)
	})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(listener)
	}()
	ts.Defer(func() {
		server.Close()
		<-ended
	})
}

// gone is a router that knows no way for anybody.
type gone struct{}

func beGone() {
	sdk.Serve(sdk.Plugin[struct{}]{Name: "gone", Version: "1", Doc: "knows no way", Kinds: gone{},
		New: func(context.Context, struct{}, sdk.Host) (any, error) { return gone{}, nil }})
}

func (gone) Route(_ context.Context, r *mail.Routing) ([]mail.Hop, error) {
	return slices.Repeat([]mail.Hop{{Reply: mail.NewReply(550, "5.1.1", "gone")}}, len(r.Envelope.To)), nil
}

// pyfilter FILE: builds the plugin of examples/pyfilter.
func cmdPyfilter(ts *testscript.TestScript, neg bool, args []string) {
	src := ts.MkAbs("pyfilter-src")
	for _, files := range []fs.FS{os.DirFS("../../examples/pyfilter/src"), python.Files} {
		ts.Check(os.CopyFS(src, files))
	}
	if out, err := exec.Command(pythonInterpreter, "-m", "zipapp", src, "-p", pythonInterpreter, "-o", ts.MkAbs(args[0])).CombinedOutput(); err != nil {
		ts.Fatalf("%s%v", out, err)
	}
}
