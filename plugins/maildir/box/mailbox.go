package box

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Errors that a session has an answer of its own for.
var (
	// ErrGone says that the message has been removed.
	ErrGone = errors.New("the message is no longer there")
	// ErrNoFolder says that there is no such folder.
	ErrNoFolder = errors.New("there is no such folder")

	errReplaced = errors.New("the folder has been replaced by another")
)

// Message is one message of a folder. What it is called changes when flags do: ask the mailbox.
type Message struct {
	UID  uint32
	name string // the unique part, before ":2,"

	// Guarded by the mailbox.
	sub   string // "new" or "cur"
	info  string // what follows the name: "" or ":2,..."
	flags Flags
	other string // letters of the info that are not ours
	mod   uint64 // the change of the mailbox that changed it last
	scan  uint32 // the last scan that saw it
	gone  bool
	kept  any // see Keep
	extra int64
	size  int64 // with CRLF; 0: not known yet
	date  time.Time
}

// Mailbox is an open folder, shared by all its sessions.
type Mailbox struct {
	account *Account
	dir     string       // "." or ".Sent"
	refs    int          // guarded by the account
	count   atomic.Int64 // messages
	kept    atomic.Int64 // bytes, see Keep

	mu       sync.Mutex
	msgs     []*Message // by UID
	byName   map[string]*Message
	uids     *uidTable
	keywords keywords
	keyStamp time.Time
	mod      uint64
	scans    uint32
	renames  uint64 // files that scans have found under other names
	dead     bool   // deleted or replaced: all messages are gone for who has it open
	loaded   bool
	stamps   [2]time.Time // of new and cur, when they were read
	read     time.Time    // when that began
	took     time.Duration
	told     bool          // that there is new mail: the next look is not put off
	changed  chan struct{} // closed at the next change
	warned   map[string]string
}

func newMailbox(a *Account, dir string) *Mailbox {
	return &Mailbox{account: a, dir: dir, byName: make(map[string]*Message), warned: make(map[string]string), changed: make(chan struct{})}
}

func (m *Mailbox) root() *os.Root { return m.account.root }

// coarse is how far apart two changes must be for the time of a directory to tell them apart.
const coarse = 50 * time.Millisecond

// cheap is how long reading a folder may take and still be done at each command.
const cheap = 20 * time.Millisecond

// Sync looks for what others have changed. Unless it must, it does nothing while nothing has changed, and it spends at
// most a fifth of the time on reading a large folder that changes all the time. What Delivered tells of is looked for at once.
func (m *Mailbox) Sync(must bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.sync(must)
	m.warn("a folder can't be looked at", err)
	return err
}

func (m *Mailbox) sync(must bool) error {
	if m.dead {
		return nil
	}
	stamps, err := m.stat()
	if errors.Is(err, fs.ErrNotExist) && m.loaded {
		m.kill()
		return nil
	}
	if err != nil {
		return err
	}
	settled := m.read.Sub(stamps[0]) > coarse && m.read.Sub(stamps[1]) > coarse
	if m.loaded && stamps == m.stamps && settled || !must && !m.told && m.loaded && m.took > cheap && time.Since(m.read) < 5*m.took {
		return nil
	}
	start := time.Now()
	err = m.scanLocked()
	if errors.Is(err, errReplaced) {
		m.kill()
		return nil
	}
	if err != nil {
		return err
	}
	m.stamps, m.read, m.took, m.loaded, m.told = stamps, start, time.Since(start), true, false
	return nil
}

func (m *Mailbox) stat() (stamps [2]time.Time, err error) {
	for i, sub := range []string{"new", "cur"} {
		info, err := m.root().Stat(path.Join(m.dir, sub))
		if err != nil {
			return stamps, err
		}
		stamps[i] = info.ModTime()
	}
	return stamps, nil
}

// kill makes an end of the mailbox: its folder is no longer there.
func (m *Mailbox) kill() {
	m.dead = true
	m.remove(m.msgs)
	m.notify()
}

func (m *Mailbox) notify() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// Changed returns a channel that is closed at the next change that this process sees.
func (m *Mailbox) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// admit makes messages of files, in the order in which they came in. New UIDs are on stable storage before it returns.
func (m *Mailbox) admit(fresh []found) error {
	if len(fresh) == 0 {
		return nil
	}
	slices.SortFunc(fresh, compareAge)
	added := make([]*Message, 0, len(fresh))
	next := m.uids.next
	var lines []byte
	for _, f := range fresh {
		uid, known := m.uids.known[f.name]
		if !known {
			uid = next
			next++
			lines = appendUID(lines, uid, f.name)
		}
		msg := &Message{UID: uid, name: f.name, sub: f.sub, info: f.info, scan: m.scans, size: sizeOf(f.name)}
		msg.flags, msg.other = parseInfo(f)
		added = append(added, msg)
	}
	if next > maxUID {
		return errUIDs
	}
	if err := m.appendUIDs(lines); err != nil {
		return err
	}
	m.uids.next = next
	m.add(added)
	return nil
}

func (m *Mailbox) add(added []*Message) {
	m.mod++
	for _, msg := range added {
		msg.mod = m.mod
		delete(m.uids.known, msg.name)
		m.byName[msg.name] = msg
	}
	m.msgs = append(m.msgs, added...)
	m.count.Store(int64(len(m.msgs)))
	byUID := func(a, b *Message) int { return int(int64(a.UID) - int64(b.UID)) }
	if !slices.IsSortedFunc(m.msgs, byUID) {
		m.msgs = slices.SortedFunc(slices.Values(m.msgs), byUID)
	}
}

// bury forgets messages whose files are gone, and writes that down.
func (m *Mailbox) bury(gone []*Message) error {
	if len(gone) == 0 {
		return nil
	}
	m.remove(gone)
	var lines []byte
	for _, msg := range gone {
		lines = append(strconv.AppendInt(lines, -int64(msg.UID), 10), '\n')
	}
	m.uids.dead += 2 * len(gone)
	if m.uids.dead > 2*len(m.msgs)+1000 && len(m.uids.known) == 0 {
		return m.rewriteUIDs()
	}
	return m.appendUIDs(lines)
}

// remove takes messages out. Sessions that still show them find them marked as gone.
func (m *Mailbox) remove(gone []*Message) {
	if len(gone) == 0 {
		return
	}
	m.mod++
	for _, msg := range gone {
		msg.gone, msg.mod = true, m.mod
		m.release(msg)
		if m.byName[msg.name] == msg {
			delete(m.byName, msg.name)
		}
	}
	m.msgs = slices.DeleteFunc(slices.Clone(m.msgs), func(msg *Message) bool { return msg.gone })
	m.count.Store(int64(len(m.msgs)))
}

// compareAge orders files by the moment that their name begins with, then by name.
func compareAge(a, b found) int {
	return cmp.Or(cmp.Compare(a.moment, b.moment), strings.Compare(a.name, b.name))
}

// moment returns the microseconds since 1970 that a name begins with: its seconds, and what follows ".M" where that is there,
// which most programs do not pad with zeros.
func moment(name string) int64 {
	head, rest, _ := strings.Cut(name, ".")
	n, err := strconv.ParseInt(head, 10, 64)
	if err != nil || n < 0 || n > 1<<40 {
		return 0
	}
	micro := int64(0)
	if digits, ok := strings.CutPrefix(rest, "M"); ok {
		for _, c := range []byte(digits) {
			if c < '0' || c > '9' || micro >= 1e5 {
				break
			}
			micro = 10*micro + int64(c-'0')
		}
	}
	return n*1e6 + micro
}

// sizeOf returns the size with CRLF that a name tells (Maildir++ and Dovecot), or 0.
func sizeOf(name string) int64 {
	return field(name, ",W=")
}

func field(name, key string) int64 {
	_, rest, ok := strings.Cut(name, key)
	if !ok {
		return 0
	}
	rest, _, _ = strings.Cut(rest, ",")
	n, err := strconv.ParseInt(rest, 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// maxKeywordFile bounds the file of the names of keywords.
const maxKeywordFile = 64 << 10

// readKeywords reads the names of keywords if they have changed.
func (m *Mailbox) readKeywords() error {
	name := path.Join(m.dir, keywordFile)
	info, err := m.root().Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() > maxKeywordFile {
		return &fs.PathError{Op: "read", Path: name, Err: errNoFile}
	}
	if info.ModTime().Equal(m.keyStamp) {
		return nil
	}
	b, err := m.root().ReadFile(name)
	if err == nil {
		m.keywords, m.keyStamp = parseKeywords(b), info.ModTime()
	}
	return err
}

// maxTries is how often a file is looked for that others rename again and again.
const maxTries = 20

var errRenamed = errors.New("another program renames the file all the time")

// onFile runs do with the name of the message's file, and again when others have renamed it meanwhile.
func (m *Mailbox) onFile(msg *Message, do func(name string) error) error {
	for range maxTries {
		m.mu.Lock()
		gone, name := msg.gone, m.fileName(msg)
		m.mu.Unlock()
		if gone {
			return ErrGone
		}
		err := do(name)
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := m.Sync(true); err != nil {
			return err
		}
	}
	return errRenamed
}

func (m *Mailbox) fileName(msg *Message) string {
	return path.Join(m.dir, msg.sub, msg.name+msg.info)
}

// open opens a message's file. What is no file (a pipe that somebody has put there) is refused without waiting for it.
func (m *Mailbox) open(msg *Message) (f *os.File, info os.FileInfo, err error) {
	err = m.onFile(msg, func(name string) error {
		if f, err = m.root().OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0); err != nil {
			return err
		}
		if info, err = f.Stat(); err == nil && !info.Mode().IsRegular() {
			err = &fs.PathError{Op: "open", Path: name, Err: errNoFile}
		}
		if err != nil {
			f.Close()
		}
		return err
	})
	return f, info, err
}
