package plugin

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// binary is a program that has been looked at. What was hashed is what runs: a pinned program is kept as an open
// descriptor from its verification to the last restart, never looked up by its name again.
type binary struct {
	path string   // what is executed
	file *os.File // of a pinned program: inherited as descriptor execFD, and path leads there
}

func (b *binary) close() {
	if b.file != nil {
		b.file.Close()
	}
}

func openBinary(s *Spec) (*binary, error) {
	if s.Dev != nil {
		return &binary{}, nil
	}
	if s.Builtin != "" {
		return &binary{path: selfPath(s.Self)}, nil
	}
	f, err := openProgram(s.Path)
	if err != nil {
		return nil, err
	}
	if s.SHA256 == "" {
		f.Close()
		return &binary{path: s.Path}, nil
	}
	return pinned(s, f)
}

func openProgram(path string) (*os.File, error) {
	if !filepath.IsAbs(path) {
		return nil, hint(fmt.Errorf("%q is not an absolute path", path), "write the whole path as source, or builtin:NAME")
	}
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, hint(fmt.Errorf("there is no file %s", path), "install the plugin, or correct its source")
	case err != nil:
		return nil, hint(err, "the server's user must be able to read and execute it")
	}
	if err := checkProgram(f, path); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func checkProgram(f *os.File, path string) error {
	info, err := f.Stat()
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a file", path)
	case info.Mode()&0o111 == 0:
		return hint(fmt.Errorf("%s is not executable", path), "chmod +x %s", path)
	}
	return nil
}

// pinned hashes a program into a sealed copy in memory. Where the kernel has no such thing, or does not let it run, the
// open file itself is run, if nobody but root and us could have written to it.
func pinned(s *Spec, f *os.File) (*binary, error) {
	sum := sha256.New()
	sealed, err := sealedProgram(s.Name, io.TeeReader(f, sum))
	if err != nil {
		sum.Reset()
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if _, err := io.Copy(sum, f); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	if got := hex.EncodeToString(sum.Sum(nil)); !strings.EqualFold(got, s.SHA256) {
		f.Close()
		if sealed != nil {
			sealed.Close()
		}
		return nil, hint(fmt.Errorf("%s is not the program that was pinned:\n  sha256 is     %s\n  mta.hcl wants %s", s.Path, got, strings.ToLower(s.SHA256)),
			"if you have just installed this version: mta plugin pin %s", s.Name)
	}
	if sealed != nil {
		f.Close()
		return &binary{path: execPath(s.Path), file: sealed}, nil
	}
	if err := checkOwners(s.Path); err != nil {
		f.Close()
		return nil, err
	}
	return &binary{path: execPath(s.Path), file: f}, nil
}

// checkOwners refuses a program that somebody else could change between its hashing and its execution.
func checkOwners(path string) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	for {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		sticky := info.IsDir() && info.Mode()&fs.ModeSticky != 0
		if ok && (st.Uid != 0 && int(st.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 && !sticky) {
			return hint(fmt.Errorf("others may write to %s", path), "make it, and the directories above it, writable by root or the server's user only")
		}
		if path == filepath.Dir(path) {
			return nil
		}
		path = filepath.Dir(path)
	}
}
