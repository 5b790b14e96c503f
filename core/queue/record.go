package queue

import (
	"fmt"
	"slices"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

// RecipientState is how far a message has come for one recipient.
type RecipientState uint8

// The states of a recipient. Pending is the only one that may change.
const (
	Pending   RecipientState = iota // still to be delivered
	Delivered                       // the next hop, or the mailbox, has it
	Failed                          // refused for good
	Expired                         // tried until the queue's patience ended
	Dropped                         // an operator or the schedule gave it up
)

var stateNames = [...]string{"pending", "delivered", "failed", "expired", "dropped"}

// String returns the state's name as it stands in lists and logs.
func (s RecipientState) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Recipient is one forward-path of a queued message and what is known of it.
type Recipient struct {
	mail.Recipient
	State    RecipientState
	Reply    mail.Reply // the last word on it; zero before the first attempt
	Host     string     // who said so; "" when it was ourselves
	Time     time.Time  // when
	Attempts int
}

// Record is what the queue keeps of a message beside its content. It comes from Add, Load, Recover or List; its owner
// may change Recipients, Next, Age, Clock, Attempts, Warned and Held and give it to Settle.
type Record struct {
	ID         ID
	Envelope   mail.Envelope // To is nil: see Recipients
	Recipients []Recipient
	Size       int64 // of the content, in bytes
	Received   time.Time
	Next       time.Time     // when it is due
	Age        time.Duration // how long it has been waiting, where Clock is not 0
	Clock      time.Duration // what the clock by which Age is counted showed then: see package schedule
	Attempts   int
	Warned     bool              // the sender was told of the delay
	Held       string            // why an operator or a filter holds it; "" when not held
	Meta       map[string]string // "user", "remote", "listener", "helo"; "parent" is the ID that a report is about

	stored  []RecipientState // as the store has them, so that Settle can refuse an illegal move
	wasHeld bool
	sums    []uint32 // CRC-32C of the content, one for each chunk
}

// remember notes the states as those in the store.
func (r *Record) remember() {
	r.stored = make([]RecipientState, len(r.Recipients)) // a new one: copies of a Record may share the old
	for i := range r.Recipients {
		r.stored[i] = r.Recipients[i].State
	}
	r.wasHeld = r.Held != ""
}

// moves is the table of what a recipient may become. What is not in it is a bug.
var moves = [...][]RecipientState{
	Pending:   {Pending, Delivered, Failed, Expired, Dropped},
	Delivered: {Delivered},
	Failed:    {Failed},
	Expired:   {Expired},
	Dropped:   {Dropped},
}

// checkMoves returns an error when a state changed in a way that the table does not have.
func (r *Record) checkMoves() error {
	if len(r.stored) == 0 || len(r.stored) != len(r.Recipients) {
		return fmt.Errorf("message %s has %d recipients in the queue, not %d", r.ID, len(r.stored), len(r.Recipients))
	}
	for i, was := range r.stored {
		if is := r.Recipients[i].State; !slices.Contains(moves[was], is) {
			return fmt.Errorf("message %s: recipient %d can't go from %s to %s", r.ID, i+1, was, is)
		}
	}
	return nil
}

// Pending returns the indexes of the recipients that are still to be delivered.
func (r *Record) Pending() []int {
	var pending []int
	for i := range r.Recipients {
		if r.Recipients[i].State == Pending {
			pending = append(pending, i)
		}
	}
	return pending
}

// open reports whether any recipient is pending.
func (r *Record) open() bool {
	for i := range r.Recipients {
		if r.Recipients[i].State == Pending {
			return true
		}
	}
	return false
}

// Message is what Add takes.
type Message struct {
	ID       ID            // one that NewID has made for it; zero: Add makes one
	Envelope mail.Envelope // with its recipients in To
	Content  mail.Content
	Meta     map[string]string
	Held     string    // "" to queue it for delivery at once
	Received time.Time // zero: now
}
