package powercut

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestMountedDiskKeepsItsPast writes to a file on a mounted disk, syncs it, and finds it in every image from there on.
func TestMountedDiskKeepsItsPast(t *testing.T) {
	if err := Possible(); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	d := NewDisk(ext4(t, filepath.Join(dir, "empty.img")))
	at, unmount, err := Mount(d, dir, "")
	if err != nil {
		t.Skipf("no disk can be mounted here: %v", err)
	}
	text := bytes.Repeat([]byte("promised "), 1000)
	f, err := os.Create(filepath.Join(at, "promise"))
	if err != nil {
		t.Error(err)
	} else {
		f.Write(text)
		if err := f.Sync(); err != nil {
			t.Error(err)
		}
		f.Close()
	}
	promised := d.Position()
	if err := unmount(); err != nil {
		t.Fatal(err)
	}
	r := NewReplay(d)
	for _, c := range []struct {
		at int
		is bool
	}{{0, false}, {promised, true}, {d.Position(), true}} {
		img := filepath.Join(dir, "then.img")
		w, err := os.Create(img)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Truncate(d.Size()); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Image(w, c.at, KeepsNone, nil); err != nil {
			t.Fatal(err)
		}
		w.Close()
		unmount, err := MountFile(img, filepath.Join(dir, "then"), "")
		if err != nil {
			t.Fatal(err)
		}
		got, _ := os.ReadFile(filepath.Join(dir, "then", "promise"))
		if err := unmount(); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(got, text) != c.is {
			t.Errorf("at %d: %d bytes of it", c.at, len(got))
		}
		os.Remove(img)
	}
}

func ext4(t *testing.T, name string) []byte {
	t.Helper()
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		t.Skip("there is no mkfs.ext4")
	}
	if out, err := exec.Command(mkfs, "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", name, "8M").CombinedOutput(); err != nil {
		t.Skipf("mkfs.ext4: %v\n%s", err, out)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
