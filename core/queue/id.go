package queue

import (
	"fmt"
	"sync"
	"time"
)

// ID names a message: milliseconds since 1970 in the upper 42 bits, a counter in the lower 22. IDs grow in the order of
// their making, also when the clock steps back, and are never used twice. No message has ID 0.
type ID uint64

const (
	counterBits = 22
	idLength    = 13 // characters of 5 bits for 64 bits
	crockford   = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
)

// String returns the ID as 13 characters of Crockford's base32, which sort as the IDs do.
func (id ID) String() string {
	var b [idLength]byte
	for i := idLength - 1; i >= 0; i-- {
		b[i] = crockford[id&31]
		id >>= 5
	}
	return string(b[:])
}

// Time returns when the ID was made, to the millisecond. After the clock stepped back it is ahead of the clock.
func (id ID) Time() time.Time { return time.UnixMilli(int64(id >> counterBits)) }

// ParseID reads what String writes, in either case, and the letters that people mistake for digits (I, L, O) as these.
func ParseID(s string) (ID, error) {
	if len(s) != idLength {
		return 0, fmt.Errorf("%q is not a queue ID: it has %d characters, not %d", s, len(s), idLength)
	}
	var id ID
	for i := range idLength {
		v, ok := digit(s[i])
		if !ok {
			return 0, fmt.Errorf("%q is not a queue ID: it holds %q", s, s[i])
		}
		if i == 0 && v > 15 {
			return 0, fmt.Errorf("%q is not a queue ID: it is larger than any", s)
		}
		id = id<<5 | ID(v)
	}
	if id == 0 {
		return 0, fmt.Errorf("%q is not a queue ID: no message has it", s)
	}
	return id, nil
}

func digit(c byte) (byte, bool) {
	if c >= 'a' && c <= 'z' {
		c -= 'a' - 'A'
	}
	switch c {
	case 'O':
		c = '0'
	case 'I', 'L':
		c = '1'
	}
	for i := range len(crockford) {
		if crockford[i] == c {
			return byte(i), true
		}
	}
	return 0, false
}

// sequence makes IDs.
type sequence struct {
	mu   sync.Mutex
	last ID
}

// next returns an ID above all earlier ones: the clock's, or where the clock lags the last one's successor.
func (s *sequence) next(now time.Time) ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = max(s.last+1, ID(max(now.UnixMilli(), 0))<<counterBits)
	return s.last
}

// skip makes every later ID larger than id.
func (s *sequence) skip(id ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = max(s.last, id)
}
