package sdk

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/schema"
)

func TestMain(m *testing.M) {
	if os.Getenv("SERVE") != "" {
		Serve(Plugin[struct{}]{Name: "greylist", Version: "1.0.0", Doc: "lets strangers wait"})
		return
	}
	os.Exit(m.Run())
}

func TestStartedByHand(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SERVE=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if len(out) > 0 || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("%q, %v", out, err)
	}
	for _, want := range []string{"greylist 1.0.0: lets strangers wait", "mta plugin check", `plugin "greylist" {`, "mta plugin pin greylist"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("%q is not in:\n%s", want, &stderr)
		}
	}
}

// TestLog reads a line as a host of go-plugin would.
func TestLog(t *testing.T) {
	var b bytes.Buffer
	slog.New(newLogHandler(&b, "greylist")).With("a", 1).Warn("slow", slog.Group("g", "msg", "kept"))
	var line map[string]any
	if err := json.Unmarshal(b.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	if line["@level"] != "warn" || line["@message"] != "slow" || line["@module"] != "greylist" || line["@timestamp"] == nil || line["a"] != 1.0 ||
		line["g"].(map[string]any)["msg"] != "kept" {
		t.Error(b.String())
	}
}

type onlyRcpt struct{}

func (*onlyRcpt) Rcpt(context.Context, *mail.Session, mail.Recipient) (mail.Verdict, error) {
	return mail.Continue(), nil
}

type onlyMail struct{}

func (*onlyMail) Mail(context.Context, *mail.Session) (mail.Verdict, error) {
	return mail.Continue(), nil
}

type oneOption struct {
	N int `mta:"n,optional"`
}

func (c *oneOption) Check() []schema.Problem {
	if c.N == 13 {
		return []schema.Problem{{Path: []string{"n"}, Summary: "unlucky"}}
	}
	return nil
}

func TestStart(t *testing.T) {
	for words, p := range map[string]Plugin[oneOption]{
		"no method of any kind": {New: func(context.Context, oneOption, Host) (any, error) { return 7, nil }},
		"panicked":              {New: func(context.Context, oneOption, Host) (any, error) { panic("x") }},
		`promises "rcpt"`:       {Kinds: (*onlyRcpt)(nil), New: func(context.Context, oneOption, Host) (any, error) { return &onlyMail{}, nil }},
		"unlucky":               {New: func(context.Context, oneOption, Host) (any, error) { return nil, Problems{{Summary: "unlucky"}} }},
	} {
		if _, err := Of(p).start(t.Context(), oneOption{}, &host{}); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: %v", words, err)
		}
	}
	p := Of(Plugin[oneOption]{})
	if _, problems := p.decode([]byte(`{"n": 13}`)); len(problems) != 1 || problems[0].Summary != "unlucky" {
		t.Error(problems)
	}
	if c, problems := p.decode(nil); len(problems) != 0 || c != (oneOption{}) {
		t.Error(c, problems)
	}
}

type greedy struct{}

func (greedy) Needs() Needs { return Needs{Prefix: MaxPrefix + 1} }

func (greedy) Message(context.Context, *mail.Session, *mail.Message) (mail.Verdict, error) {
	return mail.Continue(), nil
}

// TestNeedsTooMuch tells the author at the start.
func TestNeedsTooMuch(t *testing.T) {
	p := Of(Plugin[struct{}]{Name: "greedy", New: func(context.Context, struct{}, Host) (any, error) { return greedy{}, nil }})
	if _, err := p.start(t.Context(), struct{}{}, nil); err == nil || !strings.Contains(err.Error(), "65536") {
		t.Error(err)
	}
}
