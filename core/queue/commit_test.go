package queue

import (
	"slices"
	"testing"
)

// TestNext has outcomes and messages wait, and looks at the groups that are made of them.
func TestNext(t *testing.T) {
	store := openQueue(t, t.TempDir())
	q := &Queue{db: store.db, files: store.files, gather: gather{off: true}}
	q.wake.L = &q.mu
	message := func(size int) *op {
		o := &op{}
		o.put([]byte("key"), make([]byte, size))
		return o
	}
	groups := func() (list [][]*op) {
		for len(q.urgent)+len(q.waiting) > 0 {
			list = append(list, q.next(nil))
		}
		return list
	}

	// What makes room, and what a duplicate would follow from, goes first, though it came last.
	first, second, outcome, removal := message(10), message(10), message(10), &op{drops: [][]byte{[]byte("key")}}
	q.waiting, q.urgent = []*op{first, second}, []*op{outcome, removal}
	if got := groups(); len(got) != 1 || !slices.Equal(got[0], []*op{outcome, removal, first, second}) {
		t.Errorf("%v", got)
	}

	// Contents are bounded; one that is larger by itself goes alone, and nothing is left behind.
	sizes := []int{maxBulk / 2, maxBulk / 2, maxBulk / 2, 2 * maxBulk, 10_000}
	for _, size := range sizes {
		q.waiting = append(q.waiting, message(size))
	}
	var got []int
	for _, group := range groups() {
		got = append(got, len(group))
	}
	if !slices.Equal(got, []int{2, 1, 1, 1}) {
		t.Errorf("groups of %v", got)
	}

	// Who has gone away meanwhile is left out.
	gone := message(10)
	gone.take()
	q.waiting = []*op{gone, message(10)}
	if got := q.next(nil); len(got) != 1 || got[0] == gone {
		t.Errorf("%v", got)
	}
}
