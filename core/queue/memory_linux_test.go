package queue

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// mapped returns how many bytes of the value log in dir this process has in its memory, and in how many files.
func mapped(t *testing.T, dir string) (n int64, files int) {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ours := false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) == 6: // 7f0a00000000-7f0a00800000 rw-s 00000000 fd:00 1234   /var/lib/mta/queue/000001.vlog
			ours = strings.HasSuffix(fields[5], ".vlog") && filepath.Dir(fields[5]) == dir
			files += int(one(ours))
		case ours && fields[0] == "Rss:":
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			n += kib << 10
		}
	}
	return n, files
}

// TestLongQueueIsNotAllInMemory queues more than the memory should hold of it, and reads all of it.
func TestLongQueueIsNotAllInMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("it writes and reads 100 MiB, for what -short is not about")
	}
	t.Parallel()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	q := openQueue(t, dir)
	var ids []ID
	for i := range 3*valueLogSize>>20 + 4 {
		ids = append(ids, add(t, q, message(pattern(i, 1<<20), "bob@example.net")).ID)
	}
	flushed(t, q)
	if n, files := mapped(t, dir); files < 3 || n > 2*valueLogSize {
		t.Errorf("%d MiB of %d files are in memory", n>>20, files)
	}
	for i, id := range ids {
		if b, err := readAll(q, id); err != nil || len(b) != 1<<20 || b[77] != pattern(i, 1<<20)[77] {
			t.Fatalf("%s: %d bytes, %v", id, len(b), err)
		}
	}
	if n, _ := mapped(t, dir); n > forgetAfter+4<<20 {
		t.Errorf("%d MiB of the value log are in memory after it was read", n>>20)
	}
}
