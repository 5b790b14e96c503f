package trial

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// wallFile is what a program that is built with wallClock looks for in its working directory: 8 bytes that say how many
// seconds its wall clock is ahead. Its plugins have the same directory, and so the same clock. The monotonic clock is left alone.
const wallFile = "wall"

// wallClock is put beside the sources of package time.
const wallClock = `package time

import (
	"syscall"
	"unsafe"
)

var wallAhead = mapWall()

func mapWall() *int64 {
	fd, err := syscall.Open("` + wallFile + `", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return new(int64)
	}
	defer syscall.Close(fd)
	b, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic("` + wallFile + `: " + err.Error())
	}
	return (*int64)(unsafe.Pointer(&b[0]))
}
`

// wallAnchor is where package time takes the wall clock, and what is done there.
const (
	wallAnchor = "	sec, nsec, mono := runtimeNow()\n"
	wallAhead  = wallAnchor + "	sec += *wallAhead\n"
)

// withWall returns files of the standard library with which a program's wall clock can be set, by their paths.
func withWall(ctx context.Context) (map[string][]byte, error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env GOROOT: %w", err)
	}
	dir := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	file := filepath.Join(dir, "time.go")
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if n := bytes.Count(text, []byte(wallAnchor)); n != 1 {
		return nil, fmt.Errorf("the wall clock is taken at %d places in %s, and not at one: %q", n, file, wallAnchor)
	}
	return map[string][]byte{
		file:                          bytes.Replace(text, []byte(wallAnchor), []byte(wallAhead), 1),
		filepath.Join(dir, "wall.go"): []byte(wallClock),
	}, nil
}

// wall sets the wall clock of the programs that run in a directory.
type wall struct {
	file  *os.File
	ahead time.Duration
	moves int
}

func newWall(dir string) (*wall, error) {
	f, err := os.OpenFile(filepath.Join(dir, wallFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	w := &wall{file: f}
	if err := w.set(0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return w, nil
}

// set sets the clock to so much ahead of the right time.
func (w *wall) set(ahead time.Duration) error {
	w.ahead = ahead
	_, err := w.file.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(ahead/time.Second)), 0)
	return err
}

// wallSteps are by how much it is set at once, forward or back.
var wallSteps = [...]time.Duration{time.Second, 3 * time.Second, time.Hour, 5 * time.Hour, 30 * 24 * time.Hour}

// move sets the clock one step forward or back, or right. A nil wall is never moved.
func (w *wall) move(chance *rand.Rand) error {
	if w == nil {
		return nil
	}
	w.moves++
	right, back, step := chance.IntN(4) == 0, chance.IntN(2) == 0, wallSteps[chance.IntN(len(wallSteps))]
	switch {
	case right:
		return w.set(0)
	case back:
		step = -step
	}
	return w.set(w.ahead + step)
}

// String says how often it was moved, behind what else there is to say.
func (w *wall) String() string {
	if w == nil {
		return ""
	}
	return fmt.Sprintf("; wall clock set: %d times", w.moves)
}
