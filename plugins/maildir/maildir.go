// Package maildir is the plugin that keeps mail: a Maildir for each account, as Dovecot, mutt and others read it.
//
// It is the builtin "maildir", a Store and a Directory. A message is written to tmp, synced, linked into new, and new is
// synced before the answer is 250; whoever reads the mailbox sees whole messages only. It refuses addresses that no
// account, alias or folder stands for (550), and never leaves the folder that its path begins with, whatever an address or
// a symbolic link says. Trouble of ours is 4xx. What a crash leaves behind is a file in tmp, which Maildir readers remove.
//
// The same delivery is stored once, see stored.go. Lines are kept with LF, as Maildir programs expect; a message that this
// would change (binary parts with LF of their own) is kept byte for byte.
//
// With blocks imap and pop3 the same process lets people read their mail, on listeners of its own: package box is what they
// see, gate is the door, imap and pop3 are the languages. Without such a block there is no listener; Dovecot on the same
// folders is as good, even at the same time.
package maildir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pabal-mta/mta/plugins/maildir/box"
	"github.com/pabal-mta/mta/plugins/maildir/gate"
	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/schema"
)

// maxParallel bounds how many recipients of one message are written at once: their syncs overlap, the disk is not flooded.
const maxParallel = 8

// Config is the plugin's block in mta.hcl.
type Config struct {
	Path       string            `mta:"path" doc:"where a mailbox is, such as /var/mail/{domain}/{user}; {user} and {domain} are those of the account, in lower case"`
	Accounts   string            `mta:"accounts,optional" type:"path" doc:"the file of the users plugin: its accounts have mailboxes, made at the first message, and their other addresses are aliases; without it a mailbox is where a folder is"`
	Aliases    map[string]string `mta:"aliases,optional" doc:"address = \"address, address\"; @example.com stands for all addresses of a domain that have no mailbox"`
	Separator  string            `mta:"separator,optional" default:"+" doc:"ann+anything@example.com goes to ann@example.com; empty: it does not"`
	Postmaster string            `mta:"postmaster,optional" doc:"who gets mail for postmaster where that is neither account nor alias; the first account unless set"`

	Quota     schema.Size `mta:"quota,optional" doc:"the most that the messages of one account may have, in all folders, such as 2GiB; no bound unless set"`
	OverQuota string      `mta:"over_quota,optional" default:"tempfail" oneof:"tempfail reject" doc:"what comes for a full mailbox is kept in the queue and tried again (452), or refused for good (552)"`

	IMAP []gate.Config `mta:"imap,block" doc:"a listener for IMAP; none: no IMAP. Implicit TLS and STARTTLS are two blocks"`
	POP3 []gate.Config `mta:"pop3,block" doc:"a listener for POP3; none: no POP3"`
}

// Maildir keeps mail in folders.
type Maildir struct {
	names  *names
	path   template
	log    *slog.Logger
	host   string
	stored *stored
	quota  *box.Quota
	full   mail.Reply    // the answer when a mailbox is full
	tries  atomic.Uint64 // makes the names in tmp differ

	boxes   *box.Store // what IMAP and POP3 show; nil without listeners
	servers []server
}

// New checks the configuration. It makes no folder yet.
func New(cfg Config, log *slog.Logger) (*Maildir, error) {
	path, err := parseTemplate(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("path: %w", err)
	}
	m := &Maildir{path: path, log: log, host: hostPart(), stored: newStored(time.Now()), quota: box.NewQuota(int64(cfg.Quota)), full: replyFull}
	if cfg.OverQuota == "reject" {
		m.full = replyFullForGood
	}
	if m.names, err = newNames(cfg, m.exists); err != nil {
		return nil, err
	}
	return m, nil
}

// hostPart returns our name for use in file names (https://cr.yp.to/proto/maildir.html).
func hostPart() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "localhost"
	}
	return strings.NewReplacer("/", `\057`, ":", `\072`, ",", `\054`).Replace(name)
}

// The answers of the store. None names a file of ours (the log does).
var (
	replyStored      = mail.NewReply(250, "2.0.0", "stored in the mailbox")
	replyUnknown     = mail.NewReply(550, "5.1.1", "there is no such mailbox here")
	replyFull        = mail.NewReply(452, "4.2.2", "the mailbox is full")
	replyFullForGood = mail.NewReply(552, "5.2.2", "the mailbox is full")
	replyTooLarge    = mail.NewReply(552, "5.3.4", "the message is larger than the mailbox may be")
	replyNoSpace     = mail.NewReply(452, "4.3.1", "the mail store is full")
	replyTrouble     = mail.NewReply(451, "4.3.0", "the mail store has trouble, try again later")
	replyElsewhere   = mail.NewReply(451, "4.3.5", "this address has become an alias for one elsewhere")
)

// Store puts the message into the mailbox of each recipient.
func (m *Maildir) Store(ctx context.Context, d *mail.Delivery) ([]mail.Reply, error) {
	replies := make([]mail.Reply, len(d.To))
	if len(d.To) == 1 {
		replies[0] = m.store(ctx, d, d.To[0].Address)
		return replies, nil
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, maxParallel)
	for i, r := range d.To {
		slots <- struct{}{}
		wg.Go(func() {
			replies[i] = m.store(ctx, d, r.Address)
			<-slots
		})
	}
	wg.Wait()
	return replies, nil
}

// store delivers to all mailboxes that an address stands for: usually one. It stops at the first that fails; what was
// stored by then is not stored again at the next try.
func (m *Maildir) store(ctx context.Context, d *mail.Delivery, to mail.Address) mail.Reply {
	found, err := m.names.resolve(to)
	if err != nil {
		return m.trouble(d, to, err)
	}
	if len(found.boxes)+len(found.elsewhere) == 0 {
		return replyUnknown
	}
	if len(found.elsewhere) > 0 {
		// The core expands aliases when it takes a message, so this one has changed since; only the core can send it on.
		return replyElsewhere
	}
	for _, box := range found.boxes {
		if err := m.deliver(ctx, d, to, box); err != nil {
			return m.trouble(d, to, err)
		}
	}
	return replyStored
}

// trouble is the answer to an error, which goes to the log.
func (m *Maildir) trouble(d *mail.Delivery, to mail.Address, err error) mail.Reply {
	switch {
	case errors.Is(err, errName):
		return replyUnknown
	case errors.Is(err, box.ErrQuota) && !m.quota.Fits(d.Content.Size()):
		return replyTooLarge
	case errors.Is(err, box.ErrQuota):
		return m.full
	}
	if m.log != nil {
		m.log.Warn("a message could not be stored", "id", d.ID, "to", to.String(), "error", err, "hint", box.Hint(err))
	}
	switch {
	case errors.Is(err, syscall.EDQUOT):
		return replyFull
	case errors.Is(err, syscall.ENOSPC):
		return replyNoSpace
	}
	return replyTrouble
}

// deliver puts the message into one mailbox.
func (m *Maildir) deliver(ctx context.Context, d *mail.Delivery, to mail.Address, box mail.Address) error {
	rel, err := m.path.expand(box)
	if err != nil {
		return err
	}
	key := keyOf(d, to, rel)
	name := fileName(d.Time, key, m.host)
	if m.stored.has(key) {
		return nil
	}
	if err := m.put(ctx, d, to, rel, name); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(m.path.base, rel), err)
	}
	m.stored.add(key, d.Time)
	if m.boxes != nil {
		m.boxes.Delivered(rel)
	}
	return nil
}

// put writes the message into the folder at rel, unless an earlier process has done that.
func (m *Maildir) put(ctx context.Context, d *mail.Delivery, to mail.Address, rel, name string) error {
	f, err := openFolder(m.path.base, rel, true)
	if err != nil {
		return err
	}
	defer f.close()
	if m.stored.maybeEarlier(d.Time) {
		if found, err := f.has(name); found || err != nil {
			return err
		}
	}
	if err := m.quota.Take(rel, f.root, d.Content.Size()); err != nil {
		return err
	}
	head, rest := underReturnPath(d.From, to, d.Content)
	if err := f.deliver(ctx, name, m.tries.Add(1), head, rest); err != nil {
		m.quota.Add(rel, -d.Content.Size())
		return err
	}
	return nil
}

// deliveredTo returns the line that names the recipient (RFC 9228): the one thing that the copies of a message differ in.
func deliveredTo(to mail.Address) string { return "Delivered-To: " + to.String() + "\r\n" }

// underReturnPath returns what is to be written for a recipient: the Return-Path that the server has put on top stays
// there (RFC 5321, 4.4), and our line comes below it.
func underReturnPath(from, to mail.Address, c mail.Content) (head string, rest mail.Content) {
	head = "Return-Path: <" + from.String() + ">\r\n"
	top := make([]byte, len(head))
	if n, _ := c.ReadAt(top, 0); string(top[:n]) != head { // a store that is asked by another server
		return deliveredTo(to), c
	}
	return head + deliveredTo(to), io.NewSectionReader(c, int64(len(head)), c.Size()-int64(len(head)))
}

// exists says whether an account has a folder; it is asked where there is no file of accounts.
func (m *Maildir) exists(a mail.Address) (bool, error) {
	rel, err := m.path.expand(a)
	if err != nil {
		return false, nil //nolint:nilerr // a name that can't be a folder has none
	}
	f, err := openFolder(m.path.base, rel, false)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	f.close()
	return true, nil
}
