package imap

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pabal-mta/mta/plugins/maildir/gate"
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
	r := newRig(t, func(*gate.Config) {})
	r.server.Close()
	r.look = time.Hour
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
