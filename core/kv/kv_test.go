package kv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/plugintest"
)

// of is the store as one plugin sees it.
type of struct {
	*Store
	plugin string
}

func (o of) Get(ctx context.Context, key string) ([]byte, bool, error) {
	return o.Store.Get(ctx, o.plugin, key)
}
func (o of) Set(ctx context.Context, key string, v []byte, ttl time.Duration) error {
	return o.Store.Set(ctx, o.plugin, key, v, ttl)
}
func (o of) Delete(ctx context.Context, key string) error { return o.Store.Delete(ctx, o.plugin, key) }
func (o of) Incr(ctx context.Context, key string, by int64, ttl time.Duration) (int64, error) {
	return o.Store.Incr(ctx, o.plugin, key, by, ttl)
}
func (o of) CompareAndSet(ctx context.Context, key string, old, new []byte, ttl time.Duration) (bool, error) {
	return o.Store.CompareAndSet(ctx, o.plugin, key, old, new, ttl)
}

func open(t *testing.T, o Options) *Store {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	s := New(o)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestVerbs holds the store, and the fake that authors test their plugins with, against the same words.
func TestVerbs(t *testing.T) {
	for name, kv := range map[string]sdk.KV{"store": of{open(t, Options{}), "greylist"}, "fake": new(plugintest.Host)} {
		t.Run(name, func(t *testing.T) { verbs(t, kv) })
	}
}

func verbs(t *testing.T, kv sdk.KV) {
	ctx := t.Context()
	is := func(key, want string) {
		t.Helper()
		v, found, err := kv.Get(ctx, key)
		if err != nil || found != (want != "-") || found && string(v) != want {
			t.Errorf("%s is %q, %v, %v; want %q", key, v, found, err, want)
		}
	}
	is("a", "-")
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	do(kv.Set(ctx, "a", nil, 0))
	is("a", "")
	do(kv.Set(ctx, "a\x00", bytes.Repeat([]byte("x"), 64<<10), 0))
	is("a", "")
	is("a\x00", strings.Repeat("x", 64<<10))
	do(kv.Delete(ctx, "a"))
	do(kv.Delete(ctx, "a"))
	is("a", "-")

	for i, c := range []struct {
		by, sum int64
		fails   bool
	}{{5, 5, false}, {-7, -2, false}, {math.MaxInt64, math.MaxInt64 - 2, false}, {3, 0, true}, {2, math.MaxInt64, false}} {
		sum, err := kv.Incr(ctx, "n", c.by, 0)
		if (err != nil) != c.fails || err == nil && sum != c.sum {
			t.Errorf("step %d: %d, %v", i, sum, err)
		}
	}
	is("n", fmt.Sprint(int64(math.MaxInt64)))

	for i, c := range []struct {
		old, new []byte
		want     bool
	}{
		{nil, []byte("1"), true}, {nil, []byte("2"), false}, {[]byte{}, []byte("2"), false}, {[]byte("1"), []byte{}, true},
		{nil, []byte("2"), false}, {[]byte{}, nil, true}, {[]byte{}, []byte("2"), false}, {nil, nil, true},
	} {
		if ok, err := kv.CompareAndSet(ctx, "c", c.old, c.new, 0); ok != c.want || err != nil {
			t.Errorf("swap %d: %v, %v", i, ok, err)
		}
	}

	do(kv.Set(ctx, "short", []byte("v"), 300*time.Millisecond))
	_, err := kv.Incr(ctx, "number", 1, 300*time.Millisecond)
	do(err)
	is("short", "v")
	time.Sleep(150 * time.Millisecond) // Badger's clock is the real one
	_, err = kv.Incr(ctx, "number", 1, time.Hour)
	do(err)
	is("number", "2")
	time.Sleep(160 * time.Millisecond)
	is("short", "-")
	is("number", "-")
	if ok, err := kv.CompareAndSet(ctx, "short", nil, []byte("w"), 0); !ok || err != nil {
		t.Error("an expired value is still in the way:", err)
	}
}

// TestOwn proves that no plugin reaches another's keys, however they are named.
func TestOwn(t *testing.T) {
	s, ctx := open(t, Options{}), t.Context()
	a, ab := of{s, "a"}, of{s, "ab"}
	if err := errors.Join(a.Set(ctx, "bk", []byte("a's"), 0), ab.Set(ctx, "k", []byte("ab's"), 0)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		kv        of
		key, want string
	}{{a, "bk", "a's"}, {ab, "k", "ab's"}, {a, "k", ""}, {ab, "bk", ""}, {a, "\x02abk", ""}, {of{s, ""}, "\x01abk", ""}} {
		if v, _, err := c.kv.Get(ctx, c.key); string(v) != c.want || err != nil {
			t.Errorf("%q of %q: %q, %v", c.key, c.kv.plugin, v, err)
		}
	}
}

// TestIncrAtOnce counts from many goroutines, with other keys in between.
func TestIncrAtOnce(t *testing.T) {
	s, ctx := open(t, Options{}), t.Context()
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 20 {
				if _, err := s.Incr(ctx, "p", "n", 1, 0); err != nil {
					t.Error(err)
				}
				if _, err := s.Incr(ctx, "p", fmt.Sprint(i, j), 1, 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if v, _, err := s.Get(ctx, "p", "n"); string(v) != "320" || err != nil {
		t.Error(string(v), err)
	}
}

// TestShare floods the store as a plugin that leaks would.
func TestShare(t *testing.T) {
	dir := t.TempDir()
	s, ctx := New(Options{Dir: dir, Quota: 100_000}), t.Context()
	var err error
	n := 0
	for ; n < 1000 && err == nil; n++ {
		err = s.Set(ctx, "leak", fmt.Sprint(n), make([]byte, 1000), 0)
	}
	if !errors.Is(err, ErrFull) || n < 95 || n > 100 {
		t.Fatalf("after %d values: %v", n, err)
	}
	if err := s.Set(ctx, "other", "k", make([]byte, 1000), 0); err != nil {
		t.Error("another plugin suffers:", err)
	}
	if err := s.Set(ctx, "leak", "0", make([]byte, 1000), 0); err != nil {
		t.Error("a value is not replaced by one of its size:", err)
	}
	if _, _, err := s.Get(ctx, "leak", "0"); err != nil {
		t.Error(err)
	}
	if err := errors.Join(s.Delete(ctx, "leak", "0"), s.Delete(ctx, "leak", "1"), s.Set(ctx, "leak", "new", make([]byte, 1000), 0)); err != nil {
		t.Error("what was deleted made no room:", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, Options{Dir: dir, Quota: 100_000}) // what is kept is counted when the store is opened
	if err := errors.Join(s.Set(ctx, "leak", "more", make([]byte, 1000), 0), s.Set(ctx, "leak", "more2", make([]byte, 1000), 0)); !errors.Is(err, ErrFull) {
		t.Error(err)
	}
}

// TestExpiredMakesRoom fills a share with values that expire.
func TestExpiredMakesRoom(t *testing.T) {
	s, ctx := open(t, Options{Quota: 10_000}), t.Context()
	for i := range 9 {
		if err := s.Set(ctx, "p", fmt.Sprint(i), make([]byte, 1000), time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	// Badger counts whole seconds.
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		s.share.mu.Lock()
		clear(s.share.counted)
		s.share.mu.Unlock()
		if err := s.Set(ctx, "p", "new", make([]byte, 5000), 0); err == nil {
			return
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func TestFullDisk(t *testing.T) {
	var full atomic.Bool
	s, ctx := open(t, Options{Full: full.Load}), t.Context()
	full.Store(true)
	if err := s.Set(ctx, "p", "k", nil, 0); !errors.Is(err, ErrFull) {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(s.o.Dir); len(entries) != 0 {
		t.Error("files were made on a full disk:", entries)
	}
	full.Store(false)
	if err := s.Set(ctx, "p", "k", nil, 0); err != nil {
		t.Error(err)
	}
	full.Store(true)
	if err := s.Set(ctx, "p", "k2", nil, 0); !errors.Is(err, ErrFull) {
		t.Error(err)
	}
	if err := s.Delete(ctx, "p", "k"); err != nil {
		t.Error("what makes room is refused:", err)
	}
}

// TestLazy proves that an unused store leaves nothing on disk, and that a closed one stays closed.
func TestLazy(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "kv")
	s := New(Options{Dir: dir})
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("a store that was not used has a directory")
	}
	if err := s.Set(t.Context(), "p", "k", nil, 0); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// TestDurable copies the files of a store that was never closed, as a kill leaves them.
func TestDurable(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	s := open(t, Options{Dir: dir})
	for i := range 50 {
		if _, err := s.Incr(ctx, "p", "n", 1, 0); err != nil {
			t.Fatal(i, err)
		}
	}
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(copied, "LOCK")); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	after := open(t, Options{Dir: copied})
	if v, _, err := after.Get(ctx, "p", "n"); string(v) != "50" || err != nil {
		t.Error(string(v), err)
	}
}

// TestDamagedIsSetAside damages every file of a store in several ways. Calls go on with a new store, or with the old one
// where it is sound; the damaged one is kept under another name, which the log tells.
func TestDamagedIsSetAside(t *testing.T) {
	t.Parallel()
	dir, ctx := t.TempDir(), t.Context()
	for round := range 2 { // the first leaves a table, the second the log of a memory table
		s := New(Options{Dir: filepath.Join(dir, "kv")})
		for i := range 20 {
			if err := s.Set(ctx, "p", fmt.Sprint("k", round, i), []byte("value"), 0); err != nil {
				t.Fatal(err)
			}
		}
		if round == 0 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		t.Cleanup(func() { s.Close() })
	}
	entries, err := os.ReadDir(filepath.Join(dir, "kv"))
	if err != nil {
		t.Fatal(err)
	}
	harms := map[string]func(b []byte) []byte{
		"flipped": func(b []byte) []byte { b[len(bytes.TrimRight(b, "\x00"))/2] ^= 1; return b },
		"cut":     func(b []byte) []byte { return b[:len(bytes.TrimRight(b, "\x00"))/2] },
		"noise":   func(b []byte) []byte { return bytes.Repeat([]byte{0xff}, 100) },
	}
	set := 0
	for _, e := range entries {
		if e.Name() == "LOCK" {
			continue
		}
		for name, harm := range harms {
			root := t.TempDir()
			at := filepath.Join(root, "kv")
			if err := os.CopyFS(at, os.DirFS(filepath.Join(dir, "kv"))); err != nil {
				t.Fatal(err)
			}
			os.Remove(filepath.Join(at, "LOCK"))
			b, err := os.ReadFile(filepath.Join(at, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			if len(bytes.TrimRight(b, "\x00")) == 0 {
				continue
			}
			if err := os.WriteFile(filepath.Join(at, e.Name()), harm(b), 0o600); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			s := New(Options{Dir: at, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			if err := s.Set(ctx, "p", "new", []byte("v"), 0); err != nil {
				t.Errorf("%s %s: %v", e.Name(), name, err)
			}
			if v, _, err := s.Get(ctx, "p", "new"); string(v) != "v" || err != nil {
				t.Errorf("%s %s: %q, %v", e.Name(), name, v, err)
			}
			if err := s.Close(); err != nil {
				t.Errorf("%s %s: %v", e.Name(), name, err)
			}
			aside, _ := filepath.Glob(at + ".damaged-*")
			if len(aside) > 0 && !strings.Contains(log.String(), aside[0]) {
				t.Errorf("%s %s: the log does not name %s: %s", e.Name(), name, aside[0], log.String())
			}
			set += len(aside)
		}
	}
	if set < 6 {
		t.Errorf("only %d stores were set aside", set)
	}
}

// TestOpenElsewhere has the store open in another process, as far as Badger can tell: it is not set aside.
func TestOpenElsewhere(t *testing.T) {
	dir, ctx := filepath.Join(t.TempDir(), "kv"), t.Context()
	first := open(t, Options{Dir: dir})
	if err := first.Set(ctx, "p", "k", nil, 0); err != nil {
		t.Fatal(err)
	}
	second := open(t, Options{Dir: dir})
	if err := second.Set(ctx, "p", "k", nil, 0); err == nil || !strings.Contains(err.Error(), "can't be opened") {
		t.Error(err)
	}
	if aside, _ := filepath.Glob(dir + ".damaged-*"); len(aside) > 0 {
		t.Error("a store in use was set aside")
	}
}
