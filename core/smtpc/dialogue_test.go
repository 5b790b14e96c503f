package smtpc

import (
	"bufio"
	"context"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

// dialogue plays a server from a script and returns the client's end. Lines of the script:
//
//	C: line     this line is wanted from the client
//	C. line     lines are wanted up to a dot; what came before the dot is "line", with \r\n and so on as in Go
//	C# n text   n octets are wanted
//	S: text     a line is said
//	S! text     text is said as it is, with escapes
//	X           the connection is closed
//	E           everything is read up to the client's close, and holds no final dot
//	H           nothing is done until the test ends
//	W           the client's close is waited for
//
// A script that is not played to its end fails the test.
func dialogue(t *testing.T, script string) *wire {
	client, server := net.Pipe()
	return dialogueOn(t, client, server, script)
}

// tcpDialogue is dialogue with buffers between the ends, as the network has them.
func tcpDialogue(t *testing.T, script string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return dialogueOn(t, client, server, script)
}

func dialogueOn(t *testing.T, client, server net.Conn, script string) *wire {
	w := &wire{Conn: client, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		defer server.Close()
		r := bufio.NewReaderSize(server, 1<<20)
		for line := range strings.Lines(script) {
			if line = strings.TrimSpace(line); line != "" && !play(t, server, r, line) {
				return
			}
		}
	}()
	t.Cleanup(func() { client.Close(); <-w.done })
	return w
}

func play(t *testing.T, server net.Conn, r *bufio.Reader, line string) bool {
	verb, arg, _ := strings.Cut(line, " ")
	switch verb {
	case "C:":
		got, err := r.ReadString('\n')
		if want := unescape(t, arg) + "\r\n"; got != want {
			t.Errorf("the client said %q (%v), not %q", got, err, want)
			return false
		}
	case "C.":
		return playContent(t, r, unescape(t, arg))
	case "C#":
		n, want, _ := strings.Cut(arg, " ")
		size, _ := strconv.Atoi(n)
		b := make([]byte, size)
		if _, err := io.ReadFull(r, b); err != nil || string(b) != unescape(t, want) {
			t.Errorf("the client said %q (%v), not %q", b, err, want)
			return false
		}
	case "S:", "S!":
		text := unescape(t, arg)
		if verb == "S:" {
			text += "\r\n"
		}
		if _, err := io.WriteString(server, text); err != nil {
			t.Errorf("saying %q: %v", text, err)
			return false
		}
	case "X":
		return false
	case "W":
		if b, _ := io.ReadAll(r); len(b) > 0 {
			t.Errorf("the client still said %.100q", b)
		}
	case "E":
		if b, _ := io.ReadAll(r); strings.Contains(string(b), "\r\n.\r\n") {
			t.Errorf("the client ended the message")
		}
	case "H":
		<-t.Context().Done()
	default:
		t.Errorf("the script has the line %q", line)
	}
	return true
}

func playContent(t *testing.T, r *bufio.Reader, want string) bool {
	var got strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Errorf("content %q ended with %v", got.String()+line, err)
			return false
		}
		if line == ".\r\n" {
			break
		}
		got.WriteString(line)
	}
	if got.String() != want {
		t.Errorf("the content is %q, not %q", got.String(), want)
	}
	return got.String() == want
}

func unescape(t *testing.T, s string) string {
	u, err := strconv.Unquote(`"` + strings.ReplaceAll(s, `"`, `\"`) + `"`)
	if err != nil {
		t.Errorf("%q: %v", s, err)
	}
	return u
}

// wire counts what goes over a connection.
type wire struct {
	net.Conn
	writes atomic.Int32
	done   chan struct{} // closed when the script has ended
}

func (w *wire) Write(b []byte) (int, error) {
	w.writes.Add(1)
	return w.Conn.Write(b)
}

// open makes a client that has been greeted and has said EHLO.
func open(t *testing.T, script string) (*Conn, *wire) {
	t.Helper()
	return openWith(t, Options{}, dialogue(t, "S: 220 mx.example ESMTP\n"+script))
}

func openTCP(t *testing.T, script string) (*Conn, *wire) {
	t.Helper()
	return openWith(t, Options{}, tcpDialogue(t, "S: 220 mx.example ESMTP\n"+script))
}

func openWith(t *testing.T, o Options, w *wire) (*Conn, *wire) {
	t.Helper()
	o.Hostname, o.Timeouts.Prompt = "me.example", time.Hour
	c := New(w, o)
	if err := c.Greet(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Hello(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.writes.Store(0)
	return c, w
}

// finish ends the script by the client's close and waits for it.
func (w *wire) finish(t *testing.T) {
	t.Helper()
	w.Close()
	select {
	case <-w.done:
	case <-time.After(5 * time.Second):
		t.Error("the script was not played to its end")
	}
}

func envelope(from string, to ...string) *mail.Envelope {
	env := &mail.Envelope{}
	if from != "" {
		env.From = mail.MustParseAddress(from)
	}
	for _, a := range to {
		env.To = append(env.To, mail.Recipient{Address: mail.MustParseAddress(a)})
	}
	return env
}

// send does a transaction that nothing follows.
func send(ctx context.Context, c *Conn, env *mail.Envelope, content mail.Content) ([]Result, error) {
	return c.Transaction(env, content).Send(ctx, nil)
}
