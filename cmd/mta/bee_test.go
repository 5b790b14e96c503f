package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pabal-mta/mta/core/admin"
	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
)

// bee is a plugin that asks everything of its host, and writes down what it hears.
type bee struct {
	host  sdk.Host
	mu    sync.Mutex
	heard *os.File
	asked bool
}

func beBee() {
	sdk.Serve(sdk.Plugin[struct{}]{Name: "bee", Version: "1", Doc: "is busy", Kinds: (*bee)(nil), New: newBee})
}

func newBee(ctx context.Context, _ struct{}, h sdk.Host) (any, error) {
	f, err := os.OpenFile(filepath.Join(h.StateDir(), "heard"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	b := &bee{host: h, heard: f}
	for word, password := range map[string]string{"right": "correct horse battery", "wrong": "x"} {
		id, err := h.Authenticate(ctx, mail.Login{User: "ann@example.test", Password: password, Mechanism: "PLAIN", Service: "imap"})
		if err != nil {
			id.User = err.Error()
		}
		b.write("%s password: %s", word, id.User)
	}
	first, err := h.KV().CompareAndSet(ctx, "submitted", nil, []byte("yes"), 0)
	if err != nil || !first {
		return b, err
	}
	h.Metrics().Count("made_total", 1)
	_, err = h.Submit(ctx, b.message("ann@example.test", "Subject: 안녕\r\n\r\nbuzz\r\n"))
	return b, err
}

func (b *bee) message(to, content string) *mail.Message {
	m := &mail.Message{Content: mail.Bytes([]byte(content))}
	m.Envelope.To = []mail.Recipient{{Address: mail.MustParseAddress(to)}}
	return m
}

func (b *bee) write(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fmt.Fprintf(b.heard, format+"\n", args...)
}

// Observe is called when mail flows; that is the time to submit what the policy refuses.
func (b *bee) Observe(ctx context.Context, events []mail.Event) error {
	for _, e := range events {
		b.write("%s %s %s", e.Name, e.To, e.Class)
	}
	if b.asked {
		return nil
	}
	b.asked = true
	_, err := b.host.Submit(ctx, b.message("nobody@example.test", "Subject: x\r\n\r\n"))
	b.write("to nobody: %v", err)
	_, err = b.host.Submit(ctx, b.message("ann@example.test", "Subject: x\n\n.\n"))
	b.write("its own lines: %v", err)
	return nil
}

// glass is a store that breaks when it is given a message for eve.
type glass struct{}

func beGlass() {
	sdk.Serve(sdk.Plugin[struct{}]{Name: "glass", Version: "1", Doc: "breaks", Kinds: glass{},
		New: func(context.Context, struct{}, sdk.Host) (any, error) { return glass{}, nil }})
}

func (glass) Store(_ context.Context, d *mail.Delivery) ([]mail.Reply, error) {
	if d.To[0].Address.Local() == "eve" {
		os.Exit(9)
	}
	return slices.Repeat([]mail.Reply{mail.NewReply(250, "2.0.0", "stored")}, len(d.To)), nil
}

// build NAME: builds the program of examples/NAME here.
func cmdBuild(ts *testscript.TestScript, neg bool, args []string) {
	out, err := exec.Command("go", "build", "-o", ts.MkAbs(args[0]), "../../examples/"+args[0]).CombinedOutput()
	if err != nil {
		ts.Fatalf("%s%v", out, err)
	}
}

// page URL REGEXP: waits until a page holds the words.
func cmdPage(ts *testscript.TestScript, neg bool, args []string) {
	want := regexp.MustCompile(args[1])
	var got []byte
	if !poll(func() bool {
		res, err := http.Get(args[0])
		if err != nil {
			return false
		}
		defer res.Body.Close()
		got, err = io.ReadAll(res.Body)
		return err == nil && want.Match(got)
	}) {
		ts.Fatalf("%s holds no %s:\n%s", args[0], args[1], got)
	}
}

// tell FILE WORDS: waits until a line of the file begins with the words.
func cmdTell(ts *testscript.TestScript, neg bool, args []string) {
	var got []byte
	if !poll(func() bool {
		got, _ = os.ReadFile(ts.MkAbs(args[0]))
		return strings.Contains("\n"+string(got), "\n"+args[1])
	}) {
		ts.Fatalf("%s does not tell %q:\n%s", args[0], args[1], got)
	}
}

// mails PATTERN: prints the files that match.
func cmdMails(ts *testscript.TestScript, neg bool, args []string) {
	files, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	var all strings.Builder
	for _, file := range files {
		all.WriteString(ts.ReadFile(file))
	}
	fmt.Fprint(ts.Stdout(), all.String())
}

// held N: waits until N messages are held and no other is in the queue.
func cmdHeld(ts *testscript.TestScript, neg bool, args []string) {
	c := admin.NewClient(ts.MkAbs("var/admin.sock"))
	var q admin.QueueStatus
	if !poll(func() bool {
		s, err := c.Status(context.Background())
		q = s.Queue
		return err == nil && fmt.Sprint(q.Held) == args[0] && q.Waiting == 0 && q.Active == 0
	}) {
		ts.Fatalf("the queue: %+v", q)
	}
}
