package users

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/text/unicode/norm"
)

// maxFile bounds the file of accounts: some 300,000 of them.
const maxFile = 64 << 20

// The errors that `mta user` tells apart.
var (
	ErrExists  = errors.New("there is such an account already")
	ErrUnknown = errors.New("there is no such account")
)

// File is a file of accounts. It may be used by several goroutines, and the file by several processes.
type File struct {
	path string

	mu    sync.Mutex
	seen  fs.FileInfo // of the file that was read last, good or not
	err   error       // what was wrong with it
	table *table      // the last good one
}

// table is the accounts of one state of the file.
type table struct {
	list   []Account
	byName map[string]int
}

func (t *table) find(name string) (Account, bool) {
	i, ok := t.byName[name]
	if !ok {
		return Account{}, false
	}
	return t.list[i], true
}

// Open prepares the file at path. A file that does not exist is made by the first Add; one that is wrong is an error that
// names the line.
func Open(path string) (*File, error) {
	f := &File{path: path}
	if _, err := f.load(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return f, nil
}

// List returns all accounts in the order of the file.
func (f *File) List() ([]Account, error) {
	t, err := f.load()
	if err != nil {
		return nil, err
	}
	return append([]Account(nil), t.list...), nil
}

// Check says whether the password is that of the account.
func (f *File) Check(name, password string) (bool, error) {
	t, err := f.load()
	if err != nil {
		return false, err
	}
	n, p, ok := normalize(name, password)
	if !ok {
		return false, nil
	}
	a, ok := t.find(n)
	return ok && !a.Disabled && a.hash.matches(p), nil
}

// Version returns a value that is another one whenever the accounts may have changed, for callers that keep something
// made of List. It costs one stat. An error comes with the last good version, if there was one.
func (f *File) Version() (version any, err error) {
	t, err := f.load()
	return t, err
}

// Add makes an account. Password is hashed here, and kept nowhere else.
func (f *File) Add(a Account, password string) error {
	name, err := ParseName(a.Name.String())
	if err != nil {
		return err
	}
	a.Name = name
	if a.hash, err = hashOf(password); err != nil {
		return err
	}
	return f.edit(func(lines []string, t *table) ([]string, error) {
		if _, ok := t.find(Canonical(a.Name)); ok {
			return nil, fmt.Errorf("%s: %w", a.Name, ErrExists)
		}
		return append(lines, a.line()), nil
	})
}

// SetPassword gives an account another password. Logins that are open stay open.
func (f *File) SetPassword(name, password string) error {
	h, err := hashOf(password)
	if err != nil {
		return err
	}
	return f.change(name, func(a Account) []string {
		a.hash = h
		return []string{a.line()}
	})
}

// Remove takes an account out of the file. Its mailbox is not touched.
func (f *File) Remove(name string) error {
	return f.change(name, func(Account) []string { return nil })
}

// change replaces the line of one account.
func (f *File) change(name string, with func(Account) []string) error {
	want, err := ParseName(name)
	if err != nil {
		return err
	}
	return f.edit(func(lines []string, _ *table) ([]string, error) {
		for i, line := range lines {
			if a, err := parseAccount(line); !isComment(line) && err == nil && a.Name == want {
				return append(lines[:i:i], append(with(a), lines[i+1:]...)...), nil
			}
		}
		return nil, fmt.Errorf("%s: %w", want, ErrUnknown)
	})
}

func hashOf(password string) (hash, error) {
	if err := checkPassword(password); err != nil {
		return hash{}, err
	}
	return newHash(norm.NFC.String(password))
}

// load returns the accounts, read again if the file is another one than last time. With an error comes the last good
// table, or nil.
func (f *File) load() (*table, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, err := os.Stat(f.path)
	if err != nil {
		f.seen = nil
		return f.table, fmt.Errorf("the file of accounts: %w", err)
	}
	if f.seen != nil && os.SameFile(f.seen, now) && f.seen.ModTime().Equal(now.ModTime()) && f.seen.Size() == now.Size() {
		return f.table, f.err
	}
	t, seen, err := read(f.path)
	f.seen, f.err = seen, err
	if err == nil {
		f.table = t
	}
	return f.table, err
}

// read returns the accounts and what the file looked like when it was opened.
func read(path string) (*table, fs.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("the file of accounts: %w", err)
	}
	defer f.Close()
	seen, err := f.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("the file of accounts: %w", err)
	}
	_, t, err := parse(path, f)
	return t, seen, err
}

// parse reads every line. Lines are what they were; the table is the accounts in them.
func parse(path string, r io.Reader) (lines []string, t *table, err error) {
	t = &table{byName: make(map[string]int)}
	in := bufio.NewScanner(io.LimitReader(r, maxFile))
	in.Buffer(nil, 64<<10)
	for in.Scan() {
		line := strings.TrimSuffix(in.Text(), "\r")
		lines = append(lines, line)
		if isComment(line) {
			continue
		}
		a, err := parseAccount(line)
		if err == nil && t.has(a) {
			err = fmt.Errorf("%s stands here a second time", a.Name)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%s:%d: %w", path, len(lines), err)
		}
		t.byName[Canonical(a.Name)] = len(t.list)
		t.list = append(t.list, a)
	}
	if err := in.Err(); err != nil {
		return nil, nil, fmt.Errorf("%s:%d: %w", path, len(lines)+1, err)
	}
	return lines, t, nil
}

func (t *table) has(a Account) bool {
	_, ok := t.byName[Canonical(a.Name)]
	return ok
}

func isComment(line string) bool {
	line = strings.TrimSpace(line)
	return line == "" || line[0] == '#'
}

// edit changes the file under the lock: nobody else's change is lost, and a reader sees the old file or the new one.
func (f *File) edit(change func(lines []string, t *table) ([]string, error)) error {
	path := f.path
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // a rename would replace the link
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() // which unlocks
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("locking %s: %w", lock.Name(), err)
	}
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	lines, t, err := parse(path, bytes.NewReader(old))
	if err != nil {
		return err
	}
	if lines, err = change(lines, t); err != nil {
		return err
	}
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(l + "\n")
	}
	return replace(path, b.String())
}

// replace puts a new file in the place of the old one, durably. It keeps the old one's owner and its group's right to
// read, so that `mta user add` run by root does not lock the server out.
func replace(path, text string) error {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // in vain once it is renamed
	defer tmp.Close()
	if err := likeOld(tmp, path); err != nil {
		return err
	}
	if _, err := tmp.WriteString(text); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// likeOld gives the new file the owner of the old one, or of the folder when there is none. Only root can, and only root
// has to.
func likeOld(tmp *os.File, path string) error {
	old, err := os.Stat(path)
	mode := fs.FileMode(0o600)
	if err == nil {
		mode |= old.Mode().Perm() & 0o040
	} else if old, err = os.Stat(filepath.Dir(path)); err != nil {
		return err
	}
	if st, ok := old.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		if err := tmp.Chown(int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	return tmp.Chmod(mode)
}
