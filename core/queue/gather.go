package queue

import (
	"math"
	"time"
)

// gather decides how long the committer waits for company before it begins a group. A sync costs the same for one
// message as for a hundred, and those whom a group has released come back with their next message a little later: a group
// that begins with the first of them makes the others wait for two syncs. So it waits for as many as there were, but
// never longer than a sync takes; somebody who is alone does not wait at all.
//
// Urgent ops are outcomes: nobody waits for them, and on their own they would keep the disk busy when the next messages
// come. They wait for messages to go with, for lazily at most, so that little is done twice after a crash.
type gather struct {
	off      bool      // nothing is synced, so nothing is gained
	expected int       // how many messages are thought to be on their way at once
	message  time.Time // since when the first message waits; zero: none does
	outcome  time.Time // since when the first urgent op waits
	group    int       // how many messages are in the group that is being synced
	start    time.Time // of its sync
	sync     time.Duration
}

const (
	patience    = time.Millisecond     // for more messages, at most
	lazily      = 2 * time.Millisecond // for messages that an outcome can go with
	manyUrgent  = 256                  // outcomes that are worth a sync of their own
	forever     = time.Duration(math.MaxInt64)
	forgetShare = 8 // of what was expected, this part is forgotten with each group that did not bear it out
)

// came is told of each op.
func (g *gather) came(urgent bool) {
	at := &g.message
	if urgent {
		at = &g.outcome
	}
	if at.IsZero() {
		*at = time.Now()
	}
}

// wait returns how long the next group is still to wait; forever while there is nothing to write.
func (g *gather) wait(now time.Time, messages, urgent int) time.Duration {
	if messages >= max(g.expected, 1) || urgent >= manyUrgent || g.off && messages+urgent > 0 {
		return 0
	}
	wait := forever
	if urgent > 0 {
		wait = g.outcome.Add(lazily).Sub(now)
	}
	if messages > 0 {
		wait = min(wait, g.message.Add(min(patience, g.sync)).Sub(now))
	}
	return wait
}

// begun is told of each group: how many messages are in it, and how many found no room.
func (g *gather) begun(now time.Time, messages, left int) {
	g.group, g.start, g.message, g.outcome = messages, now, time.Time{}, time.Time{}
	if left > 0 {
		g.message = now
	}
}

// ended is told when the group is on stable storage, and how many messages came in the meantime.
func (g *gather) ended(came int) {
	if g.group == 0 {
		return
	}
	g.sync = time.Since(g.start)
	// Those in the group come back, and those who came are there: so many are on their way at once.
	n := g.group + came
	g.expected = max(n, g.expected-(g.expected-n+forgetShare-1)/forgetShare)
}
