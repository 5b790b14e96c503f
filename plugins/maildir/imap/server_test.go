package imap

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

// slowAuth lets a login end a while after the server has told it to.
type slowAuth struct {
	asked chan struct{}
	ended atomic.Bool
}

func (a *slowAuth) Authenticate(ctx context.Context, _ mail.Login) (mail.Identity, error) {
	close(a.asked)
	<-ctx.Done()
	time.Sleep(50 * time.Millisecond)
	a.ended.Store(true)
	return mail.Identity{}, ctx.Err()
}

// TestCloseWaitsForCommands: after Close nothing of a session runs any more.
func TestCloseWaitsForCommands(t *testing.T) {
	r := &rig{t: t, dir: t.TempDir()}
	auth := &slowAuth{asked: make(chan struct{})}
	r.serve(auth, nil)
	conn, _ := raw(t, r.addr)
	fmt.Fprint(conn, "a LOGIN ann right\r\n")
	<-auth.asked
	r.server.Close()
	if !auth.ended.Load() {
		t.Error("Close has returned while a command ran")
	}
}

// TestIdleIsToldAtOnce: what is delivered by us is told by the delivery, not by the look at the directories now and then.
func TestIdleIsToldAtOnce(t *testing.T) {
	r := &rig{t: t, dir: t.TempDir(), look: time.Hour}
	r.start(nil)
	conn, br := raw(t, r.addr)
	fmt.Fprint(conn, "a LOGIN ann right\r\nb SELECT INBOX\r\nc IDLE\r\n")
	until(br, "+ ")
	for i := range 3 {
		r.deliver("ann", fmt.Sprintf("%d.a.h", i+1), letter)
		start := time.Now()
		r.store.Delivered("ann")
		if got, want := until(br, "* "), fmt.Sprintf("* %d EXISTS\r\n", i+1); got != want {
			t.Fatalf("%q, want %q", got, want)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("it was told after %v", took)
		}
	}
}

// TestSearchTime: a SEARCH that takes too long is refused, and the session goes on.
func TestSearchTime(t *testing.T) {
	r := &rig{t: t, dir: t.TempDir(), search: -time.Second}
	r.start(nil)
	r.deliver("ann", "1.a.h", letter)
	conn, br := raw(t, r.addr)
	fmt.Fprint(conn, "a LOGIN ann right\r\nb SELECT INBOX\r\nc SEARCH TEXT hello\r\nd NOOP\r\n")
	for _, want := range []string{"c NO [LIMIT] ", "d OK "} {
		if got := until(br, want[:2]); !strings.HasPrefix(got, want) {
			t.Errorf("%q, want %s", got, want)
		}
	}
}

// TestAppendLiteral8: a message may come as a literal with binary content (RFC 3516), and is kept as it came.
func TestAppendLiteral8(t *testing.T) {
	r := newRig(t, nil)
	conn, br := raw(t, r.addr)
	const content = "Content-Transfer-Encoding: binary\r\n\r\n\x00\xff\n\r\x00"
	fmt.Fprintf(conn, "a LOGIN ann right\r\nb APPEND INBOX ~{%d+}\r\n%s\r\nc SELECT INBOX\r\nd FETCH 1 BODY.PEEK[]\r\n", len(content), content)
	if got := until(br, "b "); !strings.HasPrefix(got, "b OK [APPENDUID ") {
		t.Fatal(got)
	}
	want := fmt.Sprintf("* 1 FETCH (BODY[] {%d}\r\n%s)\r\n", len(content), content)
	until(br, "c ")
	got := make([]byte, len(want))
	if _, err := io.ReadFull(br, got); err != nil || string(got) != want {
		t.Errorf("%q, want %q, %v", got, want, err)
	}
}

// TestFailedSearchSavesNothing: what $ stood for before a search that fails is not what the client wants (RFC 9051, 6.4.4.1).
func TestFailedSearchSavesNothing(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("ann", "1.a.h", letter)
	conn, br := raw(t, r.addr)
	fmt.Fprintf(conn, "a LOGIN ann right\r\nb SELECT INBOX\r\nc SEARCH RETURN (SAVE COUNT) ALL\r\nd SEARCH RETURN (SAVE COUNT) %sALL\r\ne FETCH $ UID\r\n",
		strings.Repeat("NOT ", 2000))
	if got := until(br, "d "); !strings.HasPrefix(got, "d NO [LIMIT]") {
		t.Fatal(got)
	}
	if got, err := br.ReadString('\n'); err != nil || got != "e OK FETCH completed\r\n" {
		t.Errorf("%q, %v", got, err)
	}
}
