//go:build unix

package imap

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/emersion/go-imap/v2"
)

// fullDisk lets no file of this process grow beyond n bytes until the function that it returns is called. It holds for root.
func fullDisk(t testing.TB, n int64) (room func()) {
	t.Helper()
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	set := func(cur uint64) {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: cur, Max: was.Max}); err != nil {
			t.Fatal(err)
		}
	}
	set(uint64(n))
	t.Cleanup(func() { set(was.Cur) })
	return func() { set(was.Cur) }
}

// TestFullDisk: what needs room is refused and changes nothing, flags can be changed, and what is removed is removed. No UID
// comes again.
func TestFullDisk(t *testing.T) {
	if os.Getenv("MTA_FULL_DISK") == "" { // a process of its own: go test writes files in this one
		cmd := exec.Command(os.Args[0], "-test.run=^TestFullDisk$")
		cmd.Env = append(os.Environ(), "MTA_FULL_DISK=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	r := newRig(t, nil)
	c := r.login("ann", nil)
	for range 3 {
		appendTo(t, c, "INBOX", letter, nil)
	}
	appendTo(t, c, "Archive", letter, nil)
	data, err := c.Select("INBOX", nil).Wait()
	if err != nil {
		t.Fatal(err)
	}
	// Both files of UIDs are as long as they may get, or longer.
	info, err := os.Stat(filepath.Join(r.dir, "ann", ".Archive", "mta-uids"))
	if err != nil {
		t.Fatal(err)
	}
	room := fullDisk(t, info.Size())
	isFull := func(what string, err error) {
		t.Helper()
		if e := new(imap.Error); !errors.As(err, &e) || e.Type != imap.StatusResponseTypeNo || e.Code != imap.ResponseCodeOverQuota {
			t.Errorf("%s: %v", what, err)
		}
	}
	cmd := c.Append("INBOX", int64(len(letter)), nil)
	if _, err := cmd.Write([]byte(letter)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = cmd.Wait()
	isFull("APPEND", err)
	_, err = c.Copy(imap.SeqSetNum(1), "Archive").Wait()
	isFull("COPY", err)
	_, err = c.Move(imap.SeqSetNum(1), "Archive").Wait()
	isFull("MOVE", err)
	if st, err := c.Status("Archive", &imap.StatusOptions{NumMessages: true}).Wait(); err != nil || *st.NumMessages != 1 {
		t.Errorf("after it: %+v, %v", st, err)
	}
	if err := c.Store(imap.SeqSet{{Start: 2, Stop: 3}}, &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close(); err != nil {
		t.Errorf("STORE: %v", err)
	}
	if gone, err := c.Expunge().Collect(); err != nil || len(gone) != 2 {
		t.Errorf("EXPUNGE: %v, %v", gone, err)
	}
	room()
	r.server.Close()
	r.start(nil)
	c = r.login("ann", nil)
	again, err := c.Select("INBOX", nil).Wait()
	if err != nil || again.NumMessages != 1 || again.UIDValidity != data.UIDValidity || again.UIDNext != 4 {
		t.Errorf("afterwards: %+v, %v", again, err)
	}
	if uid := appendTo(t, c, "INBOX", letter, nil).UID; uid != 4 {
		t.Errorf("UID %d comes next", uid)
	}
}
