package engine

import (
	"fmt"
	"sync"
	"time"

	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/sdk/mail"
)

// The replies to a message that can't be kept now. They are always temporary: the trouble is ours.
var (
	replyFullDisk = mail.NewReply(452, "4.3.1", "insufficient system storage, try again later")
	replyBusy     = mail.NewReply(452, "4.3.2", "too much mail is waiting to go out, try again later")
	replyStopped  = mail.NewReply(421, "4.3.2", "the server is stopping, try again later")
)

// How far output may lag behind input: so many times the memory budget of the schedule. Above maxLag no mail is taken until
// the lag has fallen below enoughLag. It is far beyond what a busy hour brings; it keeps a flood from filling the disk.
const (
	maxLag    = 32
	enoughLag = 28
)

// pressure is the one place that decides whether new mail is taken: not while the disk has too little room, and not while
// output lags too far behind input.
type pressure struct {
	room func(size int64) bool // on the disk, for a message of that size; with a hysteresis of its own
	lag  func() float64        // in memory budgets
	tell func(event.Event)

	mu     sync.Mutex
	reason string // "" while mail is taken
	since  time.Time
}

// The reasons, as they stand in the log, the status and the metrics.
const (
	reasonDisk = "the disk of the queue is nearly full (queue.min_free)"
	reasonLag  = "too much mail is waiting for its first attempt"
)

// refuses returns the reply to a message of that size, 0 where it is not known, or nil when it is taken.
func (p *pressure) refuses(size int64) *mail.Reply {
	switch p.look() {
	case reasonDisk:
		return &replyFullDisk
	case reasonLag:
		return &replyBusy
	}
	if size > 0 && !p.room(size) { // this one only
		return &replyFullDisk
	}
	return nil
}

// look finds out how it is now, and tells when that has changed: once, not for each message that is refused.
func (p *pressure) look() (reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	limit := float64(maxLag)
	if p.reason == reasonLag {
		limit = enoughLag
	}
	lag := p.lag()
	switch {
	case !p.room(0):
		reason = reasonDisk
	case lag > limit:
		reason = reasonLag
	}
	if reason == p.reason {
		return reason
	}
	now := time.Now()
	switch reason {
	case "":
		p.tell(event.Event{Name: event.IntakeResumed, Reason: p.reason, Took: now.Sub(p.since)})
	case reasonLag:
		p.tell(event.Event{Name: event.IntakeStopped, Reason: fmt.Sprintf("%s: %.0f times what memory is for, %d at most", reason, lag, maxLag)})
	default:
		p.tell(event.Event{Name: event.IntakeStopped, Reason: reason})
	}
	p.reason, p.since = reason, now
	return reason
}

// state returns why no mail is taken, and since when, "" while it is; and how far output lags, in memory budgets.
func (p *pressure) state() (reason string, since time.Time, lag float64) {
	reason = p.look()
	p.mu.Lock()
	defer p.mu.Unlock()
	if reason != "" {
		since = p.since
	}
	return reason, since, p.lag()
}
