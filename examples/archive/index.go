package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
)

// index is the file of entries. Several processes may add to it: each reads what the others have added before it does.
type index struct {
	file *os.File
	mu   sync.Mutex
	read int64               // so far
	seen map[string]struct{} // what has been stored: ID and recipient
}

// openIndex opens the index and reads it.
func openIndex(name string) (*index, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	x := &index{file: f, seen: map[string]struct{}{}}
	if err := x.locked(x.catchUp); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return x, nil
}

// locked calls f while no other process is at the file.
func (x *index) locked(f func() error) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := syscall.Flock(int(x.file.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	err := f()
	return errors.Join(err, syscall.Flock(int(x.file.Fd()), syscall.LOCK_UN))
}

// catchUp reads what has been added. A last line without its end is from a process that died in writing it: nobody was told
// that it is stored, so it is cut off.
func (x *index) catchUp() error {
	size, err := x.file.Seek(0, io.SeekEnd)
	if err != nil || size == x.read {
		return err
	}
	r := bufio.NewReader(io.NewSectionReader(x.file, x.read, size-x.read))
	for {
		line, err := r.ReadBytes('\n')
		if err == io.EOF {
			return x.file.Truncate(x.read)
		}
		if err != nil {
			return err
		}
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("byte %d is no entry of an index: %w", x.read, err)
		}
		x.seen[e.key()] = struct{}{}
		if x.read += int64(len(line)); x.read == size {
			return nil
		}
	}
}

func (e entry) key() string { return e.ID + " " + e.To }

// add adds the entries that are not there yet, and syncs them.
func (x *index) add(list []entry) error {
	return x.locked(func() error {
		if err := x.catchUp(); err != nil {
			return err
		}
		var lines bytes.Buffer
		for _, e := range list {
			if _, found := x.seen[e.key()]; found {
				continue
			}
			if err := json.NewEncoder(&lines).Encode(e); err != nil {
				return err
			}
		}
		if _, err := x.file.Write(lines.Bytes()); err != nil {
			return err
		}
		if err := x.file.Sync(); err != nil { // also when nothing was new: another process may have written and not synced
			return err
		}
		return x.catchUp()
	})
}
