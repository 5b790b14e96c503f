package maildir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"

	"github.com/pabal-mta/mta/sdk/mail"
)

// folder is one Maildir: the folders cur, new and tmp. Nothing outside of base is ever reached through it (os.Root).
type folder struct {
	root *os.Root
}

// openFolder opens the Maildir at rel below base, and makes it, durably, if it is wanted and not there.
func openFolder(base, rel string, create bool) (*folder, error) {
	f, err := open(base, rel)
	if !create || !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if err := os.MkdirAll(base, 0o700); err != nil {
		return nil, err
	}
	top, err := os.OpenRoot(base)
	if err != nil {
		return nil, err
	}
	defer shut(top)
	if err := makeDirs(top, rel); err != nil {
		return nil, err
	}
	return open(base, rel)
}

func open(base, rel string) (*folder, error) {
	// The base is opened anew each time, so that a file system mounted later is seen.
	top, err := os.OpenRoot(base)
	if err != nil {
		return nil, err
	}
	defer shut(top)
	root, err := top.OpenRoot(rel)
	if err != nil {
		return nil, err
	}
	return &folder{root}, nil
}

// makeDirs makes the folders down to rel, with cur, new and tmp in it, and syncs each folder that got a new one.
func makeDirs(root *os.Root, rel string) error {
	parent := "."
	for part := range strings.SplitSeq(rel, "/") {
		dir := path.Join(parent, part)
		if err := root.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := syncDir(root, parent); err != nil {
			return err
		}
		parent = dir
	}
	return makeSubdirs(root, rel)
}

func makeSubdirs(root *os.Root, rel string) error {
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := root.Mkdir(path.Join(rel, sub), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return syncDir(root, rel)
}

func syncDir(root *os.Root, dir string) error {
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (f *folder) close() { shut(f.root) }

// shut closes a descriptor that was only looked through: nothing can be lost.
func shut(r *os.Root) { _ = r.Close() }

// has says whether a message of that unique name is in new or cur, whatever flags follow it.
func (f *folder) has(name string) (bool, error) {
	for _, sub := range []string{"new", "cur"} {
		found, err := f.search(sub, name)
		if found || err != nil && !errors.Is(err, fs.ErrNotExist) {
			return found, err
		}
	}
	return false, nil
}

func (f *folder) search(sub, name string) (bool, error) {
	d, err := f.root.Open(sub)
	if err != nil {
		return false, err
	}
	defer d.Close()
	for {
		entries, err := d.Readdirnames(1024)
		for _, e := range entries {
			if rest, ok := strings.CutPrefix(e, name); ok && (rest == "" || rest[0] == ',' || rest[0] == ':') {
				return true, nil
			}
		}
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
}

// deliver writes the message with head before it, and makes it visible when all of it is on stable storage.
func (f *folder) deliver(ctx context.Context, name string, attempt uint64, head string, c mail.Content) error {
	tmp, err := f.create(fmt.Sprintf("%s.%d-%d", name, os.Getpid(), attempt))
	if err != nil {
		return err
	}
	defer f.root.Remove(tmp.Name()) //nolint:errcheck // a leftover in tmp harms nobody
	defer tmp.Close()
	size, err := write(ctx, tmp, head, c)
	if err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	// S is the size of the file, W the size with CRLF (Maildir++ and Dovecot).
	full := name + ",S=" + strconv.FormatInt(size, 10) + ",W=" + strconv.FormatInt(int64(len(head))+c.Size(), 10)
	if err := f.publish(tmp.Name(), path.Join("new", full)); err != nil {
		return err
	}
	return syncDir(f.root, "new")
}

// create makes a file in tmp. A folder without the three of a Maildir gets them.
func (f *folder) create(name string) (*tmpFile, error) {
	name = path.Join("tmp", name)
	const flags = os.O_CREATE | os.O_TRUNC | os.O_WRONLY // what stands there is a dead process's
	file, err := f.root.OpenFile(name, flags, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeSubdirs(f.root, "."); err != nil {
			return nil, err
		}
		file, err = f.root.OpenFile(name, flags, 0o600)
	}
	if err != nil {
		return nil, err
	}
	return &tmpFile{file, name}, nil
}

// tmpFile is an open file and its name below the folder.
type tmpFile struct {
	*os.File
	name string
}

// Name returns the name below the folder.
func (t *tmpFile) Name() string { return t.name }

// publish gives the file its name in new. A name that is there already is the same message from an earlier try.
func (f *folder) publish(tmp, name string) error {
	err := f.root.Link(tmp, name)
	switch {
	case err == nil, errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, syscall.EPERM), errors.Is(err, errors.ErrUnsupported):
		// A file system without hard links. A rename replaces an earlier try by the same bytes.
		return f.root.Rename(tmp, name)
	case errors.Is(err, fs.ErrNotExist):
		if err := makeSubdirs(f.root, "."); err != nil {
			return err
		}
		return f.root.Link(tmp, name)
	}
	return err
}
