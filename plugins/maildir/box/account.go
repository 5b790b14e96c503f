// Package box keeps what IMAP and POP3 show of a Maildir: folders, messages in the order of UIDs that never fall, flags.
//
// All of it stands in the account's folder, in files that Dovecot, mutt and mbsync know (Maildir++ folders, the letters of
// flags in file names, dovecot-keywords, subscriptions), but for the UIDs, see uids.go. Others may deliver, rename and remove
// at any time; a mailbox is read again when its directories have changed. It refuses names that are no folder's, files that
// are no regular files, and whatever is outside the account's folder (os.Root). A crash leaves files in tmp, and files that
// have no UID yet: they get one at the next look. No UID is shown before it is on stable storage.
package box

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// Delimiter parts the names of folders and those below them, as in Maildir++.
const Delimiter = '.'

// Bounds on folders.
const (
	maxFolders = 2000
	maxName    = 200 // bytes on disk
)

// Errors about folders.
var (
	// ErrExists says that there is such a folder already.
	ErrExists = errors.New("there is a folder of that name")
	// ErrName says that no folder can have that name.
	ErrName = errors.New("that is no name for a folder")
	// ErrInbox says that something can't be done to the inbox.
	ErrInbox = errors.New("the inbox can't be removed")
	// ErrTooMany says that there are too many folders.
	ErrTooMany = errors.New("there are too many folders")
)

// Inbox is the name of the folder that mail comes into.
const Inbox = "INBOX"

// Special returns the folders that every account has, made when they are first used.
func Special() []string { return []string{"Archive", "Drafts", "Junk", "Sent", "Trash"} }

// Opener finds the folder of an account. The key is the same for one folder.
type Opener func(account string) (key string, root *os.Root, err error)

// Store is the accounts that are open.
type Store struct {
	open  Opener
	host  string
	log   *slog.Logger
	quota *Quota
	files atomic.Uint64 // makes the names of new files differ

	kept atomic.Int64 // bytes, see Keep

	mu       sync.Mutex
	accounts map[string]*Account
	idle     []*Account // that nobody has open, see linger.go; the oldest first
}

// New makes a store. Host is our name in file names.
func New(host string, open Opener, log *slog.Logger) *Store {
	return &Store{open: open, host: host, log: log, accounts: make(map[string]*Account)}
}

// Account is a person's folders, shared by all sessions of that person.
type Account struct {
	store  *Store
	key    string
	root   *os.Root
	refs   int         // guarded by the store
	expiry *time.Timer // of an idle one; guarded by the store
	memory memory

	mu    sync.Mutex
	boxes map[string]*Mailbox // by directory
}

// Account opens an account; Close gives it back.
func (s *Store) Account(name string) (*Account, error) {
	key, root, err := s.open(name)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.accounts[key]; a != nil && s.revive(a, root) {
		_ = root.Close() // nothing can be lost
		a.refs++
		return a, nil
	}
	a := &Account{store: s, key: key, root: root, refs: 1, boxes: make(map[string]*Mailbox)}
	s.accounts[key] = a
	return a, nil
}

// Key returns what the account's folder is known by.
func (a *Account) Key() string { return a.key }

// Close gives the account back.
func (a *Account) Close() {
	a.store.mu.Lock()
	defer a.store.mu.Unlock()
	if a.refs--; a.refs == 0 {
		a.store.rest(a)
	}
}

// Delivered tells the sessions of an account that its inbox has new mail.
func (s *Store) Delivered(key string) {
	s.mu.Lock()
	a := s.accounts[key]
	s.mu.Unlock()
	if a == nil {
		return
	}
	a.mu.Lock()
	m := a.boxes["."]
	a.mu.Unlock()
	if m != nil {
		m.mu.Lock()
		m.told = true
		m.notify()
		m.mu.Unlock()
	}
}

// uniqueName returns the unique part of a new file's name (https://cr.yp.to/proto/maildir.html).
func (a *Account) uniqueName() string {
	now := time.Now()
	return fmt.Sprintf("%d.M%06dP%dQ%d.%s", now.Unix(), now.Nanosecond()/1000, os.Getpid(), a.store.files.Add(1), a.store.host)
}

// dirOf returns the directory of a folder.
func dirOf(name string) (string, error) {
	if strings.EqualFold(name, Inbox) {
		return ".", nil
	}
	name = canonical(name)
	dir := "." + encodeUTF7(name)
	if name == "" || !utf8.ValidString(name) || len(dir) > maxName || strings.ContainsAny(name, "/\x00") ||
		slices.Contains(strings.Split(name, string(Delimiter)), "") || strings.HasPrefix(strings.ToUpper(name), Inbox+string(Delimiter)) ||
		strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", fmt.Errorf("%q: %w", name, ErrName)
	}
	return dir, nil
}

// canonical gives the special folders their spelling.
func canonical(name string) string {
	for _, s := range Special() {
		if strings.EqualFold(s, name) {
			return s
		}
	}
	return name
}

// nameOf returns the folder of a directory, or "" for one that is none.
func nameOf(dir string) string {
	if len(dir) < 2 || dir[0] != '.' || len(dir) > maxName {
		return ""
	}
	name, ok := decodeUTF7(dir[1:])
	if !ok {
		return ""
	}
	if back, err := dirOf(name); err != nil || back != dir {
		return ""
	}
	return name
}

// Folders returns the names of all folders there are, the inbox first, and of the special ones that are not there yet.
func (a *Account) Folders() ([]string, error) {
	d, err := a.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	entries, err := d.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	names := Special()
	for _, e := range entries {
		if name := nameOf(e.Name()); name != "" && e.IsDir() && !slices.Contains(Special(), name) {
			names = append(names, name)
		}
	}
	if len(names) > maxFolders {
		names = names[:maxFolders]
	}
	slices.Sort(names)
	return append([]string{Inbox}, names...), nil
}

// Open opens a folder; Close gives it back. The inbox and the special folders are made when they are not there.
func (a *Account) Open(name string) (*Mailbox, error) {
	dir, err := dirOf(name)
	if err != nil {
		return nil, errors.Join(ErrNoFolder, err)
	}
	for range 2 {
		m := a.box(dir)
		if err = m.start(name); err == nil {
			return m, nil
		}
		m.Close()
		if errors.Is(err, errReplaced) {
			a.bury(dir) // the next one is the folder that has taken its place
			continue
		}
		break
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoFolder
	}
	return nil, err
}

// box returns the mailbox of a directory, with one more reference to it.
func (a *Account) box(dir string) *Mailbox {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.boxes[dir]
	if m == nil {
		m = newMailbox(a, dir)
		a.boxes[dir] = m
	}
	m.refs++
	return m
}

// start brings a mailbox up to date for a session that begins.
func (m *Mailbox) start(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.stat(); errors.Is(err, fs.ErrNotExist) && (m.dir == "." || slices.Contains(Special(), canonical(name))) {
		if err := makeFolder(m.root(), m.dir); err != nil {
			return err
		}
	}
	if !m.loaded {
		m.sweep()
	}
	if err := m.sync(true); err != nil {
		return err
	}
	if m.dead {
		return errReplaced
	}
	return nil
}

// Close gives the mailbox back.
func (m *Mailbox) Close() {
	a := m.account
	a.mu.Lock()
	defer a.mu.Unlock()
	if m.refs--; m.refs == 0 {
		a.thin(m)
	}
}

// Create makes a folder.
func (a *Account) Create(name string) error {
	name = strings.TrimSuffix(name, string(Delimiter)) // "I will make folders below it" (RFC 9051, 6.3.4)
	dir, err := dirOf(name)
	if err != nil {
		return err
	}
	if _, err := a.root.Stat(dir); err == nil {
		return ErrExists
	}
	all, err := a.Folders()
	if err != nil {
		return err
	}
	if len(all) >= maxFolders {
		return ErrTooMany
	}
	return makeFolder(a.root, dir)
}

// graves begins the names of folders that are being removed.
const graves = "deleted."

// Delete removes a folder and what is in it, for good.
func (a *Account) Delete(name string) error {
	dir, err := dirOf(name)
	if err != nil {
		return errors.Join(ErrNoFolder, err)
	}
	if dir == "." {
		return ErrInbox
	}
	// Under another name first: what a crash leaves of it is no folder.
	grave := path.Join("tmp", graves+a.uniqueName())
	if err := a.root.Rename(dir, grave); errors.Is(err, fs.ErrNotExist) {
		return ErrNoFolder
	} else if err != nil {
		return err
	}
	a.bury(dir)
	if err := a.root.RemoveAll(grave); err != nil {
		a.Trouble("removing what was in a deleted folder", err) // it is no folder any more, and the next sweep tries again
	}
	return nil
}

// bury makes an end of a mailbox that somebody may have open.
func (a *Account) bury(dir string) {
	a.mu.Lock()
	m := a.boxes[dir]
	delete(a.boxes, dir)
	a.mu.Unlock()
	if m != nil {
		m.mu.Lock()
		m.kill()
		m.mu.Unlock()
	}
}

// Rename gives a folder, and those below it, another name. Their UIDs stay. Of the inbox it takes the messages.
func (a *Account) Rename(from, to string) error {
	old, err := dirOf(from)
	if err != nil {
		return errors.Join(ErrNoFolder, err)
	}
	renamed, err := dirOf(to)
	if err != nil {
		return err
	}
	switch {
	case renamed == ".":
		return ErrExists
	case old == ".":
		return a.moveInbox(to)
	}
	all, err := a.Folders()
	if err != nil {
		return err
	}
	below := from + string(Delimiter)
	if strings.HasPrefix(to, below) {
		return ErrName
	}
	if err := a.rename(old, renamed); err != nil {
		return err
	}
	for _, name := range all {
		if rest, ok := strings.CutPrefix(name, below); ok {
			if err := a.renameFolder(name, to+string(Delimiter)+rest); err != nil {
				return err
			}
		}
	}
	return syncDir(a.root, ".")
}

// moveInbox makes a folder of all that is in the inbox, which stays and is empty then (RFC 9051, 6.3.6). A crash in between
// leaves messages in both.
func (a *Account) moveInbox(to string) error {
	if err := a.Create(to); err != nil {
		return err
	}
	inbox, err := a.Open(Inbox)
	if err != nil {
		return err
	}
	defer inbox.Close()
	dest, err := a.Open(to)
	if err != nil {
		return err
	}
	defer dest.Close()
	_, moved, err := inbox.Copy(inbox.Messages(), dest, true)
	if err != nil {
		return errors.Join(err, a.Delete(to)) // it is empty
	}
	return inbox.Remove(moved)
}

func (a *Account) renameFolder(from, to string) error {
	old, err := dirOf(from)
	if err != nil {
		return err
	}
	renamed, err := dirOf(to)
	if err != nil {
		return err
	}
	return a.rename(old, renamed)
}

func (a *Account) rename(old, renamed string) error {
	if _, err := a.root.Stat(renamed); err == nil {
		return ErrExists
	}
	if err := a.root.Rename(old, renamed); errors.Is(err, fs.ErrNotExist) {
		return ErrNoFolder
	} else if err != nil {
		return err
	}
	a.bury(old)
	return nil
}

// subscriptionsName is the file that Dovecot and Courier keep subscriptions in: a name a line.
const subscriptionsName = "subscriptions"

// Subscribed returns the folders that the person wants to see. Until that is said for the first time: the inbox and the
// special folders.
func (a *Account) Subscribed() ([]string, error) {
	b, err := a.root.ReadFile(subscriptionsName)
	if errors.Is(err, fs.ErrNotExist) {
		return append([]string{Inbox}, Special()...), nil
	}
	if err != nil {
		return nil, err
	}
	text := string(b)
	second, isNew := strings.CutPrefix(text, "V\t2\n")
	if isNew {
		text = second // Dovecot's newer form: parts of a name stand between tabs
	}
	var names []string
	for line := range strings.Lines(text) {
		line = strings.ReplaceAll(strings.TrimRight(line, "\r\n"), "\t", string(Delimiter))
		if name, ok := decodeUTF7(line); ok && name != "" && len(names) < maxFolders {
			names = append(names, name)
		}
	}
	return names, nil
}

// Subscribe says whether a folder is among those that the person wants to see.
func (a *Account) Subscribe(name string, want bool) error {
	if _, err := dirOf(name); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	names, err := a.Subscribed()
	if err != nil {
		return err
	}
	if strings.EqualFold(name, Inbox) {
		name = Inbox
	}
	name = canonical(name)
	if slices.Contains(names, name) == want {
		return nil
	}
	if want && len(names) >= maxFolders {
		return ErrTooMany
	}
	names = slices.DeleteFunc(names, func(s string) bool { return s == name })
	if want {
		names = append(names, name)
	}
	var b strings.Builder
	for _, s := range names {
		b.WriteString(encodeUTF7(s) + "\n")
	}
	_, err = replaceFile(a.root, subscriptionsName, []byte(b.String()))
	return err
}
