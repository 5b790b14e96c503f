package admin

import (
	"net/http"
	"sync"
	"time"
)

// streamWait is how long a line may wait for company before it is sent.
const streamWait = 100 * time.Millisecond

// stream sends a list while it is made: the first messages that a filter selects are seen though the next ones are far.
type stream struct {
	w http.ResponseWriter

	mu    sync.Mutex
	timer *time.Timer
}

// Write takes what is to be sent.
func (s *stream) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer == nil {
		s.timer = time.AfterFunc(streamWait, s.flush)
	}
	return s.w.Write(b)
}

func (s *stream) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer == nil {
		return // closed meanwhile, and the writer is no longer ours
	}
	s.timer = nil
	_ = http.NewResponseController(s.w).Flush() // the next Write tells
}

// close must be called before the handler returns; the server sends the rest.
func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
}
