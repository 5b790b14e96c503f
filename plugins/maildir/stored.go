package maildir

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

// A delivery that is tried again must not be stored again. Three things see to it, the cheap ones first:
//
//   - the deliveries of the last while are remembered;
//   - the name of a file depends on nothing but the delivery, so that a second link into new fails;
//   - a message that came in before what is remembered may have been stored by an earlier process and read since: for
//     it alone cur and new are searched.
//
// What is left: a message that was stored, read, and then removed or moved to another folder by its reader, all before a
// try again whose cause was that our answer got lost in a crash. It is stored again.

// remembered is how many deliveries are remembered.
const remembered = 1 << 14

// leeway covers the moment of a reload, when two processes store side by side.
const leeway = 5 * time.Second

// key names a delivery to a mailbox.
type key [16]byte

func keyOf(d *mail.Delivery, to mail.Address, rel string) (k key) {
	h := sha256.New()
	for _, s := range []string{d.ID, to.String(), rel} {
		_, _ = io.WriteString(h, s) // a hash takes everything
		h.Write([]byte{0})
	}
	copy(k[:], h.Sum(nil))
	return k
}

// fileName is the unique part of the file's name (https://cr.yp.to/proto/maildir.html): readers sort by it.
func fileName(t time.Time, k key, host string) string {
	return fmt.Sprintf("%d.M%06dQ%s.%s", max(t.Unix(), 0), t.Nanosecond()/1000, hex.EncodeToString(k[:10]), host)
}

// stored remembers deliveries.
type stored struct {
	mu      sync.Mutex
	known   map[key]struct{}
	ring    []mark
	next    int
	horizon time.Time // of a message that came in after it, we remember whether it was stored
}

type mark struct {
	key  key
	time time.Time
}

func newStored(start time.Time) *stored {
	return &stored{known: make(map[key]struct{}), horizon: start.Add(leeway)}
}

func (s *stored) has(k key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.known[k]
	return ok
}

// maybeEarlier says whether a message of that time may have been stored without our remembering it.
func (s *stored) maybeEarlier(t time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !t.After(s.horizon)
}

func (s *stored) add(k key, t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[k] = struct{}{}
	if len(s.ring) < remembered {
		s.ring = append(s.ring, mark{k, t})
		return
	}
	old := s.ring[s.next]
	delete(s.known, old.key)
	if old.time.After(s.horizon) {
		s.horizon = old.time
	}
	s.ring[s.next] = mark{k, t}
	s.next = (s.next + 1) % remembered
}
