package main

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestRows is a list whose rows come one by one: they are seen soon, and a wider one moves only those behind it.
func TestRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		r := &rows{out: &out}
		add := func(cells ...string) {
			t.Helper()
			if err := r.add(cells...); err != nil {
				t.Fatal(err)
			}
		}
		seen := func(want string) {
			t.Helper()
			r.mu.Lock()
			defer r.mu.Unlock()
			if out.String() != want {
				t.Errorf("printed:\n%s\nwant:\n%s", out.String(), want)
			}
		}
		add("ID", "FROM", "LAST")
		add("1", "한글@example.test", "x")
		seen("")
		time.Sleep(rowsWait)
		synctest.Wait()
		first := "ID  FROM             LAST\n1   한글@example.test  x\n"
		seen(first)
		add("2222", "a", "y")
		if err := r.flush(); err != nil {
			t.Fatal(err)
		}
		second := first + "2222  a                y\n"
		seen(second)
		time.Sleep(time.Hour)
		seen(second)
		for range rowsAtOnce {
			add("3", "", "z")
		}
		seen(second + strings.Repeat("3                      z\n", rowsAtOnce))
	})
}

type full struct{}

var errFull = errors.New("no space left on device")

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestRowsThatCantBePrinted(t *testing.T) {
	r := &rows{out: full{}}
	var err error
	for n := 0; err == nil && n < 2*rowsAtOnce; n++ {
		err = r.add("a", "b")
	}
	if !errors.Is(err, errFull) || !errors.Is(r.flush(), errFull) {
		t.Error(err)
	}
}
