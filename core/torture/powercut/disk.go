// Package powercut makes disks whose power can be cut at any moment of their past.
//
// A Disk keeps every write and every sync that reached it, in their order. From that, an Image is what a real disk might
// hold had the power gone at some moment: everything up to the last sync before it, and of what was written after that
// sync any part, in sectors of 512 bytes, for a disk writes its cache out as it likes. Mount puts a file system on a Disk
// through FUSE and a loop device, so that writes through memory maps are seen as well; that needs root and Linux.
package powercut

import (
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
)

// Sector is what a disk writes whole or not at all, in bytes.
const Sector = 512

// Disk is a disk in memory that remembers its past. Its methods may be called by several goroutines at once.
type Disk struct {
	mu    sync.Mutex
	first []byte // as it was at first
	now   []byte
	past  []event
}

// event is a write, or a sync when it has no data.
type event struct {
	at   int64
	data []byte
}

// NewDisk makes a disk that holds image at first.
func NewDisk(image []byte) *Disk {
	return &Disk{first: image, now: append([]byte(nil), image...)}
}

// Size is the size of the disk in bytes.
func (d *Disk) Size() int64 { return int64(len(d.first)) }

// ReadAt reads what was written last.
func (d *Disk) ReadAt(p []byte, at int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at >= int64(len(d.now)) {
		return 0, io.EOF
	}
	n := copy(p, d.now[at:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt writes, so that it can be read; it is not safe before the next Sync.
func (d *Disk) WriteAt(p []byte, at int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at < 0 || at+int64(len(p)) > int64(len(d.now)) {
		return 0, fmt.Errorf("a write of %d bytes at %d is beyond the end of the disk", len(p), at)
	}
	copy(d.now[at:], p)
	if len(p) > 0 {
		d.past = append(d.past, event{at, append([]byte(nil), p...)})
	}
	return len(p), nil
}

// Sync makes everything that was written until now safe.
func (d *Disk) Sync() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.past = append(d.past, event{})
}

// Position is the present moment: how many writes and syncs there were. Whatever was promised to be safe before Position
// was asked must be in every image from there on.
func (d *Disk) Position() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.past)
}

// Loss is what becomes of the writes after the last sync.
type Loss uint8

// The losses.
const (
	KeepsAll  Loss = iota // they all reached the disk
	KeepsNone             // none did
	KeepsSome             // any of them did, and others not
	Tears                 // of each any sectors did, and others not
	Losses
)

var lossNames = [...]string{"all", "none", "some", "torn"}

// String names the loss.
func (l Loss) String() string { return lossNames[l] }

// Replay makes images of a disk's past, in the order of time.
type Replay struct {
	disk  *Disk
	base  []byte // everything up to the last sync that was passed
	done  int    // so many events are in base
	dirty []bool // the parts of base that are not all zero
}

// part is what an image is copied in, in bytes.
const part = 64 << 10

// NewReplay begins at the first moment. The disk must not be written to any more.
func NewReplay(d *Disk) *Replay {
	r := &Replay{disk: d, base: append([]byte(nil), d.first...), dirty: make([]bool, (len(d.first)+part-1)/part)}
	for i := range r.dirty {
		r.dirty[i] = !zero(r.part(i))
	}
	return r
}

func (r *Replay) part(i int) []byte { return r.base[i*part : min((i+1)*part, len(r.base))] }

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// Image writes to w what the disk may hold after the power was cut at a moment, which must not lie before that of the
// last image. Parts that hold zeros only are not written: w must be new. It returns how many writes were not safe.
func (r *Replay) Image(w io.WriterAt, at int, loss Loss, chance *rand.Rand) (unsafe int, err error) {
	last := r.done
	for i := r.done; i < at; i++ {
		if r.disk.past[i].data == nil {
			last = i + 1
		}
	}
	for ; r.done < last; r.done++ {
		r.write(r.disk.past[r.done])
	}
	for i, dirty := range r.dirty {
		if !dirty {
			continue
		}
		if _, err := w.WriteAt(r.part(i), int64(i*part)); err != nil {
			return 0, err
		}
	}
	for _, e := range r.disk.past[r.done:at] {
		if err := spill(w, e, loss, chance); err != nil {
			return 0, err
		}
	}
	return at - r.done, nil
}

func (r *Replay) write(e event) {
	copy(r.base[e.at:], e.data)
	for at := e.at; at < e.at+int64(len(e.data)); at = (at/part + 1) * part {
		r.dirty[at/part] = true
	}
}

// spill writes of one unsafe write what the loss leaves.
func spill(w io.WriterAt, e event, loss Loss, chance *rand.Rand) error {
	switch {
	case loss == KeepsAll, loss == KeepsSome && chance.IntN(2) == 0:
		_, err := w.WriteAt(e.data, e.at)
		return err
	case loss != Tears:
		return nil
	}
	for at := 0; at < len(e.data); at += Sector {
		if chance.IntN(2) == 0 {
			continue
		}
		if _, err := w.WriteAt(e.data[at:min(at+Sector, len(e.data))], e.at+int64(at)); err != nil {
			return err
		}
	}
	return nil
}
