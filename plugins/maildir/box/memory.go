package box

import (
	"errors"
	"sync"
	"time"
)

// ErrBusy says that too much is being read for one account at once.
var ErrBusy = errors.New("too many large messages are being read at once")

// Bounds on what is in memory of messages that are being sent to clients.
const (
	memoryPerAccount = 64 << 20
	memoryFree       = 64 << 10 // smaller ones are not counted
	memoryWait       = 20 * time.Second
)

// memory bounds how much of the messages of an account is in memory. One that is larger than all of it goes alone.
type memory struct {
	mu    sync.Mutex
	taken int64
	freed chan struct{} // closed when something is given back
}

func (m *memory) take(n int64) error {
	if n < memoryFree {
		return nil
	}
	deadline := time.NewTimer(memoryWait)
	defer deadline.Stop()
	for {
		m.mu.Lock()
		if m.taken == 0 || m.taken+n <= memoryPerAccount {
			m.taken += n
			m.mu.Unlock()
			return nil
		}
		if m.freed == nil {
			m.freed = make(chan struct{})
		}
		freed := m.freed
		m.mu.Unlock()
		select {
		case <-freed:
		case <-deadline.C:
			return ErrBusy
		}
	}
}

func (m *memory) give(n int64) {
	if n < memoryFree {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.taken -= n
	if m.freed != nil {
		close(m.freed)
		m.freed = nil
	}
}
