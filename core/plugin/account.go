package plugin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// account is whose rights a plugin has. A nil account is the server's own.
type account struct {
	name   string
	uid    uint32
	gid    uint32
	groups []uint32
}

// accountOf finds a user of this machine.
func accountOf(name string) (*account, error) {
	if name == "" {
		return nil, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return nil, hint(fmt.Errorf("this machine has no user %q", name), "useradd --system --no-create-home %s", name)
	}
	a := &account{name: name}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, err
	}
	for _, id := range slices.Concat([]string{u.Uid, u.Gid}, ids) {
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return nil, err
		}
		a.groups = append(a.groups, uint32(n))
	}
	a.uid, a.gid, a.groups = a.groups[0], a.groups[1], a.groups[2:]
	if os.Geteuid() != 0 && int(a.uid) != os.Geteuid() {
		return nil, hint(fmt.Errorf("only root can start a plugin as user %q", name), "start the server as root, or leave user out")
	}
	return a, nil
}

// credential is what the kernel is told; nil where there is nothing to change.
func (a *account) credential() *syscall.Credential {
	if a == nil || os.Geteuid() != 0 {
		return nil
	}
	return &syscall.Credential{Uid: a.uid, Gid: a.gid, Groups: a.groups}
}

// give makes a file or a directory the account's own.
func (a *account) give(path string) error {
	if a == nil || os.Geteuid() != 0 {
		return nil
	}
	return os.Lchown(path, int(a.uid), int(a.gid))
}

// through lets others pass through a directory of ours, but neither list nor change it.
func (a *account) through(dir string) error {
	if err := os.Chmod(dir, 0o711); err != nil {
		return err
	}
	return a.reaches(dir)
}

// reaches proves that the account can pass through a directory and all above it.
func (a *account) reaches(dir string) error {
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && !a.passes(info.Mode().Perm(), st) {
			return hint(fmt.Errorf("user %q can't pass through %s", a.name, dir), "chmod o+x %s", dir)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

func (a *account) passes(mode fs.FileMode, st *syscall.Stat_t) bool {
	switch {
	case a.uid == 0:
		return true
	case st.Uid == a.uid:
		return mode&0o100 != 0
	case st.Gid == a.gid || slices.Contains(a.groups, st.Gid):
		return mode&0o010 != 0
	default:
		return mode&0o001 != 0
	}
}

// stateDir makes the directory that a plugin keeps its own things in.
func stateDir(dir string, who *account) error {
	if who == nil {
		return ownDir(dir)
	}
	parent := filepath.Dir(dir)
	if err := ownDir(parent); err != nil {
		return err
	}
	if err := who.through(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	return who.give(dir)
}
