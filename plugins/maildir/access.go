package maildir

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/pabal-mta/mta/plugins/maildir/box"
	"github.com/pabal-mta/mta/plugins/maildir/gate"
	"github.com/pabal-mta/mta/plugins/maildir/imap"
	"github.com/pabal-mta/mta/plugins/maildir/pop3"
	"github.com/pabal-mta/mta/sdk/mail"
)

// authenticator says whether a login is right: the server asks the plugin that the block's "auth" names.
type authenticator interface {
	Authenticate(ctx context.Context, login mail.Login) (mail.Identity, error)
}

// errNoAuth says why there can be no listeners.
var errNoAuth = errors.New("imap and pop3 need to know who may log in, and this server has no way to ask: the plugin's block wants auth = plugin.users")

// server is a block that is being served.
type server interface{ Close() }

// Listen opens the listeners of the configuration. Host is asked about logins.
func (m *Maildir) Listen(cfg Config, host any) error {
	if len(cfg.IMAP)+len(cfg.POP3) == 0 {
		return nil
	}
	auth, ok := host.(authenticator)
	if !ok {
		return errNoAuth
	}
	guard := gate.NewGuard(auth)
	log := m.log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	m.boxes = box.New(m.host, m.openRoot, log)
	m.boxes.Limit(m.quota)
	for _, c := range cfg.IMAP {
		if err := m.serve(c, imap.Refuse, log, func(g *gate.Gate) server { return imap.Serve(g, guard, m.boxes, log) }); err != nil {
			return err
		}
	}
	for _, c := range cfg.POP3 {
		if err := m.serve(c, pop3.Refuse, log, func(g *gate.Gate) server { return pop3.Serve(g, guard, m.boxes, log) }); err != nil {
			return err
		}
	}
	return nil
}

func (m *Maildir) serve(c gate.Config, refuse string, log *slog.Logger, serve func(*gate.Gate) server) error {
	g, err := gate.Open(c, refuse, log)
	if err != nil {
		return errors.Join(err, m.Close())
	}
	m.servers = append(m.servers, serve(g))
	return nil
}

// Close ends the sessions and the listeners.
func (m *Maildir) Close() error {
	for _, s := range m.servers {
		s.Close()
	}
	m.servers = nil
	return nil
}

// openRoot opens the folder of the account that a login turned out to be, and makes it if it is not there.
func (m *Maildir) openRoot(account string) (key string, root *os.Root, err error) {
	a, err := mail.ParseUnquoted(account)
	if err != nil {
		return "", nil, err
	}
	rel, err := m.path.expand(a)
	if err != nil {
		return "", nil, err
	}
	f, err := openFolder(m.path.base, rel, true)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", filepath.Join(m.path.base, rel), err)
	}
	return rel, f.root, nil
}
