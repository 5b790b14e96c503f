package imap

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2/imapclient"

	"github.com/pabal-mta/mta/plugins/maildir/box"
	"github.com/pabal-mta/mta/plugins/maildir/gate"
	"github.com/pabal-mta/mta/sdk/mail"
)

const letter = "From: Eve <eve@example.org>\r\nTo: ann@example.com\r\nSubject: =?utf-8?b?7JWI64WV?=\r\n" +
	"Date: Mon, 02 Mar 2026 10:00:00 +0900\r\nMessage-ID: <1@example.org>\r\n\r\nhello\r\nworld\r\n"

// fakeAuth lets ann and bob in with the password "right"; "broken" has trouble.
type fakeAuth struct{}

func (fakeAuth) Authenticate(_ context.Context, l mail.Login) (mail.Identity, error) {
	switch {
	case l.User == "broken":
		return mail.Identity{}, fmt.Errorf("the disk is gone")
	case l.Password == "right":
		return mail.Identity{User: l.User}, nil
	}
	return mail.Identity{}, mail.ErrBadLogin
}

type rig struct {
	t      testing.TB
	dir    string
	addr   string
	store  *box.Store
	server *Server
	look   time.Duration // of the next server; 0: as ever
	search time.Duration // the same
}

func newRig(t testing.TB, change func(*gate.Config)) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir()}
	r.start(change)
	return r
}

func (r *rig) start(change func(*gate.Config)) {
	r.t.Helper()
	r.serve(fakeAuth{}, change)
}

func (r *rig) serve(auth gate.Authenticator, change func(*gate.Config)) {
	r.t.Helper()
	cfg := gate.Config{Address: []string{"127.0.0.1:0"}, InsecureAuth: true, Connections: 100, ConnectionsPerIP: 50, ConnectionsPerLogin: 20}
	if change != nil {
		change(&cfg)
	}
	log := slog.New(slog.DiscardHandler)
	g, err := gate.Open(cfg, Refuse, log)
	if err != nil {
		r.t.Fatal(err)
	}
	r.addr = g.Listeners()[0].Addr().String()
	r.store = box.New("host", func(account string) (string, *os.Root, error) {
		dir := filepath.Join(r.dir, account)
		for _, sub := range []string{"cur", "new", "tmp"} {
			if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
				return "", nil, err
			}
		}
		root, err := os.OpenRoot(dir)
		return account, root, err
	}, log)
	r.server = newServer(g, gate.NewGuard(auth), r.store, log)
	if r.look != 0 {
		r.server.look = r.look
	}
	if r.search != 0 {
		r.server.search = r.search
	}
	r.server.serveAll()
	r.t.Cleanup(r.server.Close)
}

// deliver puts a message into new, as any delivery program does.
func (r *rig) deliver(account, name, content string) {
	r.t.Helper()
	dir := filepath.Join(r.dir, account)
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			r.t.Fatal(err)
		}
	}
	tmp := filepath.Join(dir, "tmp", name)
	if err := os.WriteFile(tmp, []byte(strings.ReplaceAll(content, "\r\n", "\n")), 0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, "new", name)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) dial(options *imapclient.Options) *imapclient.Client {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	c := imapclient.New(conn, options)
	r.t.Cleanup(func() { c.Close() })
	return c
}

func (r *rig) login(account string, options *imapclient.Options) *imapclient.Client {
	r.t.Helper()
	c := r.dial(options)
	if err := c.Login(account, "right").Wait(); err != nil {
		r.t.Fatal(err)
	}
	return c
}
