package box

import (
	"os"
	"slices"
	"time"
)

// Many clients come for a moment, again and again. What has been read of a folder stays in memory for a while after the
// last of them has gone, so that the next one costs a look at two directories. It is brought up to date as ever.
const (
	lingerTime   = 10 * time.Minute
	maxIdle      = 64      // accounts that nobody has open
	maxIdleBoxes = 8       // folders of an account that nobody has open
	maxIdleSize  = 100_000 // messages of all idle accounts
	maxKept      = 32 << 20
	keptAtLeast  = 64 // bytes that anything kept is counted as
)

// rest lets an account linger; the store is locked.
func (s *Store) rest(a *Account) {
	s.idle = append(s.idle, a)
	a.expiry = time.AfterFunc(lingerTime, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if a.refs == 0 && slices.Contains(s.idle, a) {
			s.drop(a)
		}
	})
	for len(s.idle) > maxIdle || len(s.idle) > 0 && s.idleSize() > maxIdleSize {
		s.drop(s.idle[0])
	}
}

func (s *Store) idleSize() (n int64) {
	for _, a := range s.idle {
		n += a.size()
	}
	return n
}

// size returns how many messages of an account are in memory.
func (a *Account) size() (n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, m := range a.boxes {
		n += m.count.Load()
	}
	return n
}

// drop makes an end of an idle account; the store is locked.
func (s *Store) drop(a *Account) {
	s.idle = slices.DeleteFunc(s.idle, func(x *Account) bool { return x == a })
	a.expiry.Stop()
	if s.accounts[a.key] == a {
		delete(s.accounts, a.key)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, m := range a.boxes {
		s.kept.Add(-m.kept.Load())
	}
	clear(a.boxes)
	_ = a.root.Close() // nothing can be lost
}

// revive says whether an account can be used further: an idle one only while root, which was opened just now, is the same
// folder. The store is locked.
func (s *Store) revive(a *Account, root *os.Root) bool {
	if a.refs > 0 {
		return true
	}
	now, err1 := root.Stat(".")
	then, err2 := a.root.Stat(".")
	if err1 != nil || err2 != nil || !os.SameFile(now, then) {
		s.drop(a)
		return false
	}
	a.expiry.Stop()
	s.idle = slices.DeleteFunc(s.idle, func(x *Account) bool { return x == a })
	return true
}

// thin forgets folders that nobody has open when there are many; the account is locked. It is called when the last session
// has left m.
func (a *Account) thin(m *Mailbox) {
	if a.boxes[m.dir] != m { // it has been buried
		a.store.kept.Add(-m.kept.Swap(0))
		return
	}
	idle := 0
	for _, x := range a.boxes {
		if x.refs == 0 {
			idle++
		}
	}
	for dir, x := range a.boxes {
		if idle > maxIdleBoxes && x.refs == 0 && x != m {
			delete(a.boxes, dir)
			a.store.kept.Add(-x.kept.Swap(0))
			idle--
		}
	}
}

// Keep remembers what somebody has worked out about a message, which takes so many bytes, as long as there is room. It must
// not be changed.
func (m *Mailbox) Keep(msg *Message, what any, bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	bytes += keptAtLeast
	if msg.kept != nil || msg.gone || m.account.store.kept.Load()+bytes > maxKept {
		return
	}
	msg.kept, msg.extra = what, bytes
	m.kept.Add(bytes)
	m.account.store.kept.Add(bytes)
}

// Kept returns what was remembered about a message that is still there; nil: nothing.
func (m *Mailbox) Kept(msg *Message) any {
	m.mu.Lock()
	defer m.mu.Unlock()
	return msg.kept
}

// release forgets what was kept of a message; the mailbox is locked.
func (m *Mailbox) release(msg *Message) {
	m.kept.Add(-msg.extra)
	m.account.store.kept.Add(-msg.extra)
	msg.kept, msg.extra = nil, 0
}
