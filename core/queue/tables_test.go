package queue

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDamagedTableIsRefusedInWords flips a byte at many places of a table, and cuts it off at as many. Badger by itself
// ends the process over some of these, and goes on without the table over others.
func TestDamagedTableIsRefusedInWords(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	q := openQueue(t, dir)
	for i := range 200 {
		add(t, q, message(pattern(i, 100), "bob@example.net"))
	}
	closeQueue(t, q)
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) != 1 {
		t.Fatalf("%v, %v", tables, err)
	}
	whole, err := os.ReadFile(tables[0])
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, at int, b []byte) {
		t.Helper()
		if err := os.WriteFile(tables[0], b, 0o600); err != nil {
			t.Fatal(err)
		}
		for name, open := range map[string]func() (*Queue, error){
			"Open":         func() (*Queue, error) { return Open(dir, Options{MinFree: -1}) },
			"OpenReadOnly": func() (*Queue, error) { return OpenReadOnly(dir) },
		} {
			q, err := open()
			if err == nil {
				q.Close()
			}
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), filepath.Base(tables[0])) {
				t.Errorf("%s %d of %d, %s: %v", what, at, len(whole), name, err)
			}
		}
	}
	const places = 60
	for i := range places {
		at := i * (len(whole) - 1) / (places - 1)
		b := bytes.Clone(whole)
		b[at] ^= byte(1 + i)
		refused("flipped at", at, b)
		refused("cut at", at, whole[:at])
	}
	if err := os.WriteFile(tables[0], whole, 0o600); err != nil {
		t.Fatal(err)
	}
	q = openQueue(t, dir)
	defer q.Close()
	if got := recovered(t, q); len(got) != 200 {
		t.Errorf("%d messages in the table as it was", len(got))
	}
}
