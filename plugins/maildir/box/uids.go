package box

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The file of UIDs of a folder, beside cur, new and tmp:
//
//	mta-uids 1 VALIDITY NEXT       the first line
//	UID NAME                       the file of that unique name has that UID
//	-UID                           it is gone
//
// Lines are appended, and synced before a UID is shown to anyone. The file is replaced whole (written beside, synced,
// renamed) when most of it is about messages that are gone; NEXT keeps UIDs from being used twice then. A line that a
// crash has cut off has been shown to nobody. A file that can't be read gets another VALIDITY, so that clients forget what
// they knew (RFC 9051, 2.3.1.1). Whoever reads to write holds the lock, a file of its own because this one is renamed.
const (
	uidFileName  = "mta-uids"
	uidLockName  = "mta-uids.lock"
	validityName = "mta-uidvalidity"
	uidMagic     = "mta-uids 1 "
)

// maxUID leaves room above, so that no arithmetic of a client or ours wraps around.
const maxUID = math.MaxUint32 - 1<<16

var errUIDs = errors.New("the file of UIDs can't be read")

// uidTable is what a file of UIDs holds.
type uidTable struct {
	validity uint32
	next     uint32
	known    map[string]uint32 // names of files that no message in memory has
	dead     int               // lines about messages that are gone
	offset   int64             // what has been read
	file     os.FileInfo       // which was read
}

// parseUIDs reads the first line, then the others.
func parseUIDs(b []byte) (*uidTable, error) {
	head, rest, ok := bytes.Cut(b, []byte("\n"))
	text, magic := strings.CutPrefix(string(head), uidMagic)
	validity, next, _ := strings.Cut(text, " ")
	v, err1 := strconv.ParseUint(validity, 10, 32)
	n, err2 := strconv.ParseUint(next, 10, 32)
	if !ok || !magic || err1 != nil || err2 != nil || v == 0 || n == 0 || n > maxUID {
		return nil, errUIDs
	}
	t := &uidTable{validity: uint32(v), next: uint32(n), known: make(map[string]uint32, bytes.Count(rest, []byte("\n")))}
	t.offset = int64(len(head)) + 1
	return t, t.parse(rest)
}

// parse reads lines. What follows the last line end is left: a crash has cut it off, or it is being written.
func (t *uidTable) parse(b []byte) error {
	for {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			return nil
		}
		if err := t.line(string(b[:i])); err != nil {
			return err
		}
		t.offset += int64(i) + 1
		b = b[i+1:]
	}
}

func (t *uidTable) line(s string) error {
	number, name, named := strings.Cut(s, " ")
	gone := strings.HasPrefix(number, "-")
	n, err := strconv.ParseUint(strings.TrimPrefix(number, "-"), 10, 32)
	if err != nil || n == 0 || n > maxUID || gone == named {
		return nil //nolint:nilerr // what a crash of the machine left of a line: shown to nobody
	}
	uid := uint32(n)
	t.next = max(t.next, uid+1)
	if t.next > maxUID {
		return errUIDs
	}
	if gone {
		t.dead += 2
		return nil
	}
	if strings.HasPrefix(name, `"`) {
		if name, err = strconv.Unquote(name); err != nil {
			return nil //nolint:nilerr // the same
		}
	}
	if name != "" {
		t.known[name] = uid
	}
	return nil
}

// appendUID appends the line of a message.
func appendUID(b []byte, uid uint32, name string) []byte {
	b = strconv.AppendUint(b, uint64(uid), 10)
	b = append(b, ' ')
	if name[0] == '"' || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		b = strconv.AppendQuote(b, name)
	} else {
		b = append(b, name...)
	}
	return append(b, '\n')
}

// lock waits until no other process works on the UIDs of the folder.
func (m *Mailbox) lock() (unlock func(), err error) {
	f, err := m.root().OpenFile(path.Join(m.dir, uidLockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(f); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

func flock(f *os.File) error {
	for {
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != syscall.EINTR {
			return err
		}
	}
}

// readUIDs brings m.uids up to date with the file; the lock is held. It makes the file if there is none. When the
// file has become another one, with another validity, the mailbox is no longer the one that sessions know: errReplaced.
func (m *Mailbox) readUIDs() error {
	name := path.Join(m.dir, uidFileName)
	f, err := m.root().OpenFile(name, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return m.newUIDs()
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return &fs.PathError{Op: "open", Path: name, Err: errNoFile}
	}
	if t := m.uids; t != nil && os.SameFile(info, t.file) && info.Size() >= t.offset {
		if err := t.more(f, info); err == nil {
			return nil
		}
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	t, err := parseUIDs(b)
	if err != nil {
		return m.newUIDs()
	}
	if m.uids != nil && t.validity != m.uids.validity {
		return errReplaced
	}
	t.file = info
	m.adopt(t)
	return cutTail(f, t.offset, info.Size())
}

// more reads what was appended since.
func (t *uidTable) more(f *os.File, info os.FileInfo) error {
	if info.Size() > t.offset {
		b := make([]byte, info.Size()-t.offset)
		if _, err := f.ReadAt(b, t.offset); err != nil {
			return err
		}
		if err := t.parse(b); err != nil {
			return err
		}
	}
	return cutTail(f, t.offset, info.Size())
}

// cutTail removes half a line, which only a crash leaves while the lock is ours.
func cutTail(f *os.File, offset, size int64) error {
	if offset == size {
		return nil
	}
	return f.Truncate(offset)
}

// adopt takes a table that was read anew: names of messages that are in memory already are known from there.
func (m *Mailbox) adopt(t *uidTable) {
	for name, uid := range t.known {
		if msg := m.byName[name]; msg != nil && msg.UID == uid {
			delete(t.known, name)
		}
	}
	m.uids = t
}

// newUIDs begins anew, with a validity that this account has not had.
func (m *Mailbox) newUIDs() error {
	if m.uids != nil {
		return errReplaced
	}
	validity, err := m.account.nextValidity()
	if err != nil {
		return err
	}
	m.uids = &uidTable{validity: validity, next: 1, known: make(map[string]uint32)}
	return m.rewriteUIDs()
}

// rewriteUIDs replaces the file by one that names the messages that there are.
func (m *Mailbox) rewriteUIDs() error {
	t := m.uids
	b := fmt.Appendf(nil, "%s%d %d\n", uidMagic, t.validity, t.next)
	for _, msg := range m.msgs {
		b = appendUID(b, msg.UID, msg.name)
	}
	info, err := replaceFile(m.root(), path.Join(m.dir, uidFileName), b)
	if err != nil {
		return err
	}
	t.file, t.offset, t.dead = info, int64(len(b)), 0
	clear(t.known)
	return nil
}

// appendUIDs puts lines at the end and syncs them.
func (m *Mailbox) appendUIDs(lines []byte) error {
	if len(lines) == 0 {
		return nil
	}
	f, err := m.root().OpenFile(path.Join(m.dir, uidFileName), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := f.WriteAt(lines, m.uids.offset)
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		// What was written of it must not be read by the next: the lines belong to no message.
		_ = f.Truncate(m.uids.offset)
		return err
	}
	m.uids.offset += int64(n)
	return nil
}

// replaceFile writes beside, syncs and renames.
func replaceFile(root *os.Root, name string, content []byte) (os.FileInfo, error) {
	tmp := name + ".tmp"
	_ = root.Remove(tmp) // what a crash has left; a link of somebody else's must not be followed
	f, err := root.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Write(content); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := root.Rename(tmp, name); err != nil {
		return nil, err
	}
	return info, syncDir(root, path.Dir(name))
}

func syncDir(root *os.Root, dir string) error {
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// nextValidity returns a UIDVALIDITY above all that this account has had, so that a folder that is deleted and made again
// is not taken for the old one.
func (a *Account) nextValidity() (uint32, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	lock, err := a.root.OpenFile(validityName+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return 0, err
	}
	defer lock.Close()
	if err := flock(lock); err != nil {
		return 0, err
	}
	v := uint32(time.Now().Unix())
	b, err := a.root.ReadFile(validityName)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err // one that was used before could come again
	}
	if last, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32); err == nil && last < math.MaxUint32 {
		v = max(v, uint32(last)+1)
	}
	_, err = replaceFile(a.root, validityName, fmt.Appendf(nil, "%d\n", v))
	return v, err
}
