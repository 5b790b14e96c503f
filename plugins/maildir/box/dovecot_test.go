package box

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// TestLettersBesideDovecot gives letters while Dovecot does: under its lock, and never one that it has just given.
func TestLettersBesideDovecot(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	_, m := open(t, dir)
	if err := m.Sync(true); err != nil {
		t.Fatal(err)
	}
	letter := func(name string) Flags {
		t.Helper()
		f, err := m.Letters([]string{name}, true)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	if f := letter("ours"); f != keyword0 {
		t.Errorf("%b", f)
	}
	write(dovecotUIDs, "3 V1 N1\n")
	file := filepath.Join(dir, keywordFile)
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	write(keywordFile, "0 ours\n1 theirs\n")
	if err := os.Chtimes(file, info.ModTime(), info.ModTime()); err != nil { // in the same tick of the clock
		t.Fatal(err)
	}
	if f := letter("third"); f != keyword0<<2 {
		t.Errorf("%b", f)
	}
	if after, err := os.Stat(file); err != nil || after.ModTime().Unix() == info.ModTime().Unix() {
		t.Errorf("%v: Dovecot does not see that the file is another one", err)
	}
	if _, err := os.Stat(filepath.Join(dir, dovecotLock)); err == nil {
		t.Error("the lock was left")
	}

	lock := write(dovecotLock, "")
	synctest.Test(t, func(t *testing.T) {
		if _, err := m.Letters([]string{"late"}, true); err == nil {
			t.Error("a letter was given while Dovecot held the lock")
		}
	})
	if _, err := os.Stat(lock); err != nil {
		t.Error("the lock of another was taken away")
	}
	old := time.Now().Add(-dovecotStale - time.Second)
	if err := os.Chtimes(lock, old, old); err != nil {
		t.Fatal(err)
	}
	if f := letter("fourth"); f != keyword0<<3 {
		t.Errorf("%b", f)
	}
}
