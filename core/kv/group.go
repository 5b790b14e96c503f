package kv

import (
	"sync"

	"github.com/dgraph-io/badger/v4"
)

// write is one change on its way to the disk.
type write struct {
	key    []byte
	entry  *badger.Entry
	delete bool
	done   chan error
}

// group commits together what waits together: one sync for all changes that came while the last one was under way.
type group struct {
	mu      sync.Mutex
	waiting []*write
	busy    bool // a goroutine commits
}

// commit returns when the change is on stable storage. Two changes of one key are never in it at once.
func (g *group) commit(db *badger.DB, w *write) error {
	w.done = make(chan error, 1)
	g.mu.Lock()
	g.waiting = append(g.waiting, w)
	if !g.busy {
		g.busy = true
		go g.run(db)
	}
	g.mu.Unlock()
	return <-w.done
}

// run commits until nothing waits. The callers keep the store open meanwhile.
func (g *group) run(db *badger.DB) {
	for {
		g.mu.Lock()
		list := g.waiting
		g.waiting = nil
		g.busy = len(list) > 0
		g.mu.Unlock()
		if len(list) == 0 {
			return
		}
		err := commitAll(db, list)
		for _, w := range list {
			w.done <- err
		}
	}
}

// commitAll writes changes in as few transactions as hold them. After an error each of them may be written or not.
func commitAll(db *badger.DB, list []*write) error {
	batch := db.NewWriteBatch()
	defer batch.Cancel()
	for _, w := range list {
		var err error
		if w.delete {
			err = batch.Delete(w.key)
		} else {
			err = batch.SetEntry(w.entry)
		}
		if err != nil {
			return err
		}
	}
	return batch.Flush()
}
