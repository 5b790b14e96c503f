package box

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// TestRenamedFilesAreNotGone: a folder is read in pieces, so that a file which is renamed meanwhile may be in none of them.
func TestRenamedFilesAreNotGone(t *testing.T) {
	const files, looks = 1000, 20
	dir := t.TempDir()
	cur := filepath.Join(dir, "cur")
	name := func(i, round int) string {
		return filepath.Join(cur, fmt.Sprintf("%d.a-name-that-is-rather-long.host:2,%s", 1000+i, []string{"", "S", "F", "FS"}[round%4]))
	}
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for i := range files {
		if err := os.WriteFile(name(i, 0), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, m := open(t, dir)
	stop := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		for round := 1; ; round++ {
			for i := range files {
				select {
				case <-stop:
					return
				default:
					_ = os.Rename(name(i, round-1), name(i, round)) // nobody else is at work
				}
			}
		}
	})
	for range looks {
		if err := m.Sync(true); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wait.Wait()
	if s := m.Status(); s.Messages != files || s.Next != files+1 {
		t.Errorf("%d messages, the next UID is %d", s.Messages, s.Next)
	}
}

// TestMoment: files of one second come in the order of their microseconds, which hardly anybody pads with zeros.
func TestMoment(t *testing.T) {
	inOrder := []string{
		"no number", "999.M5.host", "1000.host", "1000.M9P7.host", "1000.M90778Q0a.host", "1000.M143464P1.host", "1000.M582863Q0b.host",
		"1000.M999999P1.host", "1001.host", "1001.M1.host",
	}
	var list []found
	for _, name := range inOrder {
		list = append(list, found{name: name, moment: moment(name)})
	}
	if !slices.IsSortedFunc(list, compareAge) {
		t.Errorf("%+v", list)
	}
	for _, name := range []string{"-5.M1.host", "99999999999999999999.host", "1.M99999999999999999999.host"} {
		if n := moment(name); n < 0 || n > 2e6 {
			t.Errorf("%s: %d", name, n)
		}
	}
}
