package box

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"
)

// Placed is a message that has been put into a folder.
type Placed struct {
	Validity uint32
	UIDs     []uint32
}

// placing is a whole file in tmp, and what it is to be called in cur.
type placing struct {
	tmp, name string
	flags     Flags
}

// Append puts a message into the folder. It is on stable storage, with its UID, when Append returns.
func (m *Mailbox) Append(r io.Reader, flags Flags, date time.Time) (Placed, error) {
	name := m.account.uniqueName()
	tmp := path.Join(m.dir, "tmp", name)
	defer m.root().Remove(tmp) //nolint:errcheck // it has gone to cur, or is worth nothing
	size, wire, err := m.spool(r, tmp)
	if err != nil {
		return Placed{}, err
	}
	if !date.IsZero() {
		if err := m.root().Chtimes(tmp, date, date); err != nil {
			return Placed{}, err
		}
	}
	if err := m.account.take(size, false); err != nil {
		return Placed{}, err
	}
	name += fmt.Sprintf(",S=%d,W=%d", size, wire)
	p, err := m.place([]placing{{tmp, name, flags}})
	if err != nil {
		m.account.give(size)
	}
	return p, err
}

// spool writes a message to tmp, with LF unless that would change it. It returns the size of the file, and with CRLF.
func (m *Mailbox) spool(r io.Reader, tmp string) (size, wire int64, err error) {
	raw := tmp + ".raw"
	in, err := m.create(raw)
	if err != nil {
		return 0, 0, err
	}
	defer m.root().Remove(raw) //nolint:errcheck // it has been renamed, or is worth nothing
	defer in.Close()
	check := lineCheck{w: in}
	if wire, err = io.Copy(&check, r); err != nil {
		return 0, 0, err
	}
	if !check.strict() {
		if err := in.Sync(); err != nil {
			return 0, 0, err
		}
		return wire, wire, m.root().Rename(raw, tmp)
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return 0, 0, err
	}
	out, err := m.create(tmp)
	if err != nil {
		return 0, 0, err
	}
	defer out.Close()
	if size, err = withLF(out, in); err != nil {
		return 0, 0, err
	}
	return size, wire, out.Sync()
}

// create makes a file in tmp. A folder without the three of a Maildir gets them.
func (m *Mailbox) create(name string) (*os.File, error) {
	return m.root().OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
}

// lineCheck finds out whether all lines end in CRLF, and no CR stands before one: only then LF for CRLF loses nothing.
type lineCheck struct {
	w    io.Writer
	last [2]byte
	bad  bool
}

func (c *lineCheck) strict() bool { return !c.bad }

// Write passes on what it has looked at.
func (c *lineCheck) Write(b []byte) (int, error) {
	for _, x := range b {
		if x == '\n' && (c.last[1] != '\r' || c.last[0] == '\r') {
			c.bad = true
		}
		c.last = [2]byte{c.last[1], x}
	}
	return c.w.Write(b)
}

// withLF copies with LF for CRLF.
func withLF(w io.Writer, r io.Reader) (size int64, err error) {
	in, out := bufio.NewReaderSize(r, 64<<10), bufio.NewWriterSize(w, 64<<10)
	for {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) && line[len(line)-1] == '\r' {
			line = line[:len(line)-1] // it may belong to a LF, which comes next
			if err := in.UnreadByte(); err != nil {
				return 0, err
			}
		}
		if n := len(line); n > 1 && line[n-1] == '\n' {
			line = append(line[:n-2], '\n')
		}
		n, werr := out.Write(line)
		size += int64(n)
		switch {
		case werr != nil:
			return 0, werr
		case err == io.EOF:
			return size, out.Flush()
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return 0, err
		}
	}
}

// place gives whole files in tmp their names in cur, and their UIDs. All of it, or nothing that a session sees.
func (m *Mailbox) place(files []placing) (Placed, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.sync(!m.loaded); err != nil {
		return Placed{}, err
	}
	if m.dead {
		return Placed{}, ErrNoFolder
	}
	unlock, err := m.lock()
	if err != nil {
		return Placed{}, err
	}
	defer unlock()
	if err := m.readUIDs(); err != nil {
		return Placed{}, err
	}
	added, err := m.publish(files)
	if err != nil {
		for _, msg := range added {
			_ = m.root().Remove(m.fileName(msg)) // it has not been promised to anyone
		}
		return Placed{}, err
	}
	m.uids.next += uint32(len(added))
	m.add(added)
	m.notify()
	p := Placed{Validity: m.uids.validity}
	for _, msg := range added {
		p.UIDs = append(p.UIDs, msg.UID)
	}
	return p, nil
}

func (m *Mailbox) publish(files []placing) (added []*Message, err error) {
	next := m.uids.next
	if uint64(next)+uint64(len(files)) > maxUID {
		return nil, errUIDs
	}
	var lines []byte
	for _, f := range files {
		msg := &Message{UID: next, name: f.name, sub: "cur", info: f.flags.suffix(""), flags: f.flags, scan: m.scans, size: sizeOf(f.name)}
		if err := m.root().Rename(f.tmp, m.fileName(msg)); err != nil {
			return added, err
		}
		added = append(added, msg)
		lines = appendUID(lines, next, f.name)
		next++
	}
	if err := syncDir(m.root(), path.Join(m.dir, "cur")); err != nil {
		return added, err
	}
	return added, m.appendUIDs(lines)
}

// Copy puts messages into another folder, flags and dates as they are; all of them or none. Those that have been removed
// meanwhile are left out: from says which were copied. What is moved, which means that it will be removed here, is not
// refused for a lack of room.
func (m *Mailbox) Copy(msgs []*Message, dest *Mailbox, moving bool) (p Placed, from []*Message, err error) {
	var files []placing
	var size int64
	defer func() {
		for _, f := range files {
			_ = m.root().Remove(f.tmp) // there only if it has not gone to cur
		}
	}()
	for _, msg := range msgs {
		f, err := m.link(msg, dest)
		if errors.Is(err, ErrGone) {
			continue
		}
		if err != nil {
			return Placed{}, nil, err
		}
		files, from = append(files, f), append(from, msg)
		size += m.bytesOf(msg)
	}
	if len(files) == 0 {
		return Placed{}, nil, nil
	}
	if err := m.account.take(size, moving); err != nil {
		return Placed{}, nil, err
	}
	if p, err = dest.place(files); err != nil {
		m.account.give(size)
	}
	return p, from, err
}

// link gives a message's file a second name in tmp of another folder.
func (m *Mailbox) link(msg *Message, dest *Mailbox) (f placing, err error) {
	marks := m.Marks(msg)
	letters, err := dest.Letters(marks.Keywords, true)
	if errors.Is(err, ErrKeywords) {
		letters, err = dest.Letters(marks.Keywords, false)
	}
	if err != nil {
		return f, err
	}
	name := m.account.uniqueName()
	f = placing{tmp: path.Join(dest.dir, "tmp", name), name: name + sizes(msg.name), flags: marks.Flags&(keyword0-1) | letters}
	return f, m.onFile(msg, func(from string) error {
		err := m.root().Link(from, f.tmp)
		if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EXDEV) || errors.Is(err, errors.ErrUnsupported) {
			return m.duplicate(from, f.tmp)
		}
		return err
	})
}

// sizes returns what a name tells of sizes.
func sizes(name string) string {
	var b bytes.Buffer
	for _, key := range []string{",S=", ",W="} {
		if n := field(name, key); n > 0 {
			fmt.Fprintf(&b, "%s%d", key, n)
		}
	}
	return b.String()
}

// duplicate copies a file where there are no hard links.
func (m *Mailbox) duplicate(from, to string) error {
	in, err := m.root().Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := m.create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	if err := out.Sync(); err != nil {
		return err
	}
	return m.root().Chtimes(to, info.ModTime(), info.ModTime())
}

// stale is how old a file in tmp is that nobody writes any more (https://cr.yp.to/proto/maildir.html).
const stale = 36 * time.Hour

// sweep removes what crashes have left in tmp.
func (m *Mailbox) sweep() {
	dir := path.Join(m.dir, "tmp")
	d, err := m.root().Open(dir)
	if err != nil {
		return
	}
	defer d.Close()
	for {
		entries, err := d.ReadDir(1024)
		for _, e := range entries {
			if e.IsDir() && strings.HasPrefix(e.Name(), graves) {
				_ = m.root().RemoveAll(path.Join(dir, e.Name())) // the same
				continue
			}
			if info, err := e.Info(); err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > stale {
				_ = m.root().Remove(path.Join(dir, e.Name())) // the next sweep tries again
			}
		}
		if err != nil {
			return
		}
	}
}

// makeFolder makes a Maildir of three folders, durably.
func makeFolder(root *os.Root, dir string) error {
	if dir != "." {
		if err := root.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := root.Mkdir(path.Join(dir, sub), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if dir == "." {
		return syncDir(root, ".")
	}
	// Maildir++ marks a folder that is not an account.
	f, err := root.OpenFile(path.Join(dir, "maildirfolder"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	if err := syncDir(root, dir); err != nil {
		return err
	}
	return syncDir(root, ".")
}
