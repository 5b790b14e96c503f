package box

// View is what one session knows of a mailbox: its messages in the order of their numbers. A message that is gone keeps
// its number until the session may be told. A view is for one goroutine at a time.
type View struct {
	m       *Mailbox
	entries []entry
	mod     uint64
}

type entry struct {
	msg *Message
	mod uint64 // the change of the message that the session knows
}

// Change is what a session is to be told. Exactly one of Expunged, Exists and Flags (of message Seq) is meant.
type Change struct {
	Expunged uint32
	Exists   uint32
	Seq      uint32
	UID      uint32
	Flags    Marks
}

// Marks is what is marked on a message, in words.
type Marks struct {
	Flags    Flags
	Keywords []string
}

// View begins a session's view of the mailbox as it is now.
func (m *Mailbox) View() *View {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := &View{m: m, entries: make([]entry, len(m.msgs)), mod: m.mod}
	for i, msg := range m.msgs {
		v.entries[i] = entry{msg, msg.mod}
	}
	return v
}

// Len returns how many messages the session knows.
func (v *View) Len() uint32 { return uint32(len(v.entries)) }

// At returns the message of a number from 1 to Len.
func (v *View) At(seq uint32) *Message { return v.entries[seq-1].msg }

// Update brings the view up to date and returns what has changed. Unless gone is allowed, messages that are gone stay.
func (v *View) Update(gone bool) (changes []Change) {
	v.m.mu.Lock()
	defer v.m.mu.Unlock()
	if v.mod == v.m.mod {
		return nil
	}
	kept, left := v.entries[:0], false
	for i := range v.entries {
		e := v.entries[i]
		switch {
		case e.msg.gone && gone:
			changes = append(changes, Change{Expunged: uint32(len(kept)) + 1})
			continue
		case e.msg.gone:
			left = true
		case e.msg.mod != e.mod:
			e.mod = e.msg.mod
			changes = append(changes, Change{Seq: uint32(len(kept)) + 1, UID: e.msg.UID, Flags: v.m.marks(e.msg)})
		}
		kept = append(kept, e)
	}
	clear(v.entries[len(kept):])
	v.entries = kept
	if v.grow() {
		changes = append(changes, Change{Exists: v.Len()})
	}
	if !left {
		v.mod = v.m.mod
	}
	return changes
}

// grow adds the messages above the last one.
func (v *View) grow() bool {
	var last uint32
	if n := len(v.entries); n > 0 {
		last = v.entries[n-1].msg.UID
	}
	n := len(v.entries)
	for _, msg := range v.m.msgs[v.m.after(last):] {
		v.entries = append(v.entries, entry{msg, msg.mod})
	}
	return len(v.entries) > n
}

// Told says that the session knows the flags of a message, because it has set or fetched them.
func (v *View) Told(seq uint32) {
	v.m.mu.Lock()
	defer v.m.mu.Unlock()
	e := &v.entries[seq-1]
	e.mod = e.msg.mod
}

// Gone says whether the message has been removed.
func (v *View) Gone(msg *Message) bool {
	v.m.mu.Lock()
	defer v.m.mu.Unlock()
	return msg.gone
}
