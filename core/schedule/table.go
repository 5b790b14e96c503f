package schedule

import (
	"time"

	"github.com/pabal-mta/mta/core/queue"
)

// state is where a message is.
type state uint8

const (
	free    state = iota // the entry is not in use
	waiting              // for its time
	ready                // for a worker
	leased               // somebody works on it: an attempt, a verb, the queue that records it
	held                 // for an operator
	states
)

// entry is all that is kept in memory of a message that is not worked on. It holds no pointer, so that a million of them
// cost the garbage collector nothing.
type entry struct {
	id       queue.ID
	site     uint32 // index of the site that it waits for
	link     uint32 // ready: the next entry of the site's list, 0 for none; else: place in the heap + 1, 0 for none
	kib      uint32 // counted as lag, in KiB; 0 once the first attempt has ended
	born     int32  // seconds by the queue's clock; unborn: the age in seconds
	state    state
	lane     uint8
	warned   bool // its sender was told of the delay
	busy     bool // an operation waits for it, in Schedule.ops
	unborn   bool // the queue's clock does not go yet
	stranded bool // it waits because its site is not asked, and is called back when it is
}

const chunkBits = 12

type chunk [1 << chunkBits]entry

// alarm is a place in the heap.
type alarm struct {
	due   int64 // nanoseconds after table.base
	entry uint32
}

// table is all entries, and the heap of those that wait. Entry 0 is never used, so that 0 can mean none.
type table struct {
	chunks []*chunk
	unused []uint32
	used   uint32 // entries ever used
	base   time.Time
	origin time.Duration // what the queue's clock showed at base; 0: it does not go yet
	latest time.Duration // what it showed at last, as the records say
	byID   map[queue.ID]uint32
	heap   []alarm
	count  [states]int
}

func (t *table) init() {
	t.byID = map[queue.ID]uint32{}
	t.used = 1
	t.base = time.Now()
	t.chunks = []*chunk{new(chunk)}
}

func (t *table) at(i uint32) *entry { return &t.chunks[i>>chunkBits][i&(1<<chunkBits-1)] }

// add makes an entry, in state leased: whoever adds it decides what it becomes. A message that is known already is
// left alone.
func (t *table) add(id queue.ID) (at uint32, isNew bool) {
	if _, known := t.byID[id]; known {
		return 0, false
	}
	if n := len(t.unused); n > 0 {
		at, t.unused = t.unused[n-1], t.unused[:n-1]
	} else {
		at = t.used
		t.used++
		if int(at>>chunkBits) == len(t.chunks) {
			t.chunks = append(t.chunks, new(chunk))
		}
	}
	*t.at(at) = entry{id: id, state: leased}
	t.count[leased]++
	t.byID[id] = at
	return at, true
}

// remove forgets an entry, which is in no list.
func (t *table) remove(at uint32) {
	e := t.at(at)
	t.unwait(at)
	t.count[e.state]--
	delete(t.byID, e.id)
	*e = entry{}
	t.unused = append(t.unused, at)
}

func (t *table) become(at uint32, s state) {
	e := t.at(at)
	t.count[e.state]--
	t.count[s]++
	e.state = s
}

// wait puts an entry into the heap and reports whether it is the first there now. What waits goes by the monotonic clock: a
// step of the wall clock makes nothing due, and puts nothing off.
func (t *table) wait(at uint32, due time.Time) bool {
	t.unwait(at)
	now := time.Now()
	t.heap = append(t.heap, alarm{int64(now.Sub(t.base) + due.Sub(now)), at})
	t.up(len(t.heap) - 1)
	return t.heap[0].entry == at
}

// first returns the entry that is due first.
func (t *table) first() (at uint32, due time.Time, ok bool) {
	if len(t.heap) == 0 {
		return 0, time.Time{}, false
	}
	return t.heap[0].entry, t.base.Add(time.Duration(t.heap[0].due)), true
}

// unwait takes an entry out of the heap, if it is there.
func (t *table) unwait(at uint32) {
	e := t.at(at)
	if e.state == ready || e.link == 0 { // a ready entry's link is not a place in the heap
		return
	}
	i, last := int(e.link-1), len(t.heap)-1
	e.link = 0
	moved := t.heap[last]
	t.heap = t.heap[:last]
	if i == last {
		return
	}
	t.put(i, moved)
	t.down(i)
	t.up(i)
}

func (t *table) put(i int, a alarm) {
	t.heap[i] = a
	t.at(a.entry).link = uint32(i + 1)
}

// The heap has four children to a node: half the depth of two, and they share a cache line.

func (t *table) up(i int) {
	a := t.heap[i]
	for i > 0 {
		parent := (i - 1) / 4
		if t.heap[parent].due <= a.due {
			break
		}
		t.put(i, t.heap[parent])
		i = parent
	}
	t.put(i, a)
}

func (t *table) down(i int) {
	a := t.heap[i]
	for {
		least := 4*i + 1
		if least >= len(t.heap) {
			break
		}
		for c := least + 1; c < min(4*i+5, len(t.heap)); c++ {
			if t.heap[c].due < t.heap[least].due {
				least = c
			}
		}
		if t.heap[least].due >= a.due {
			break
		}
		t.put(i, t.heap[least])
		i = least
	}
	t.put(i, a)
}
