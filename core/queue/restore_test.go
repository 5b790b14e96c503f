package queue

import (
	"bytes"
	"errors"
	"testing"

	"github.com/pabal-mta/mta/sdk/mail"
)

// TestRestoreKeepsWhatIsKnown moves a message, one of whose recipients has it already, to another queue.
func TestRestoreKeepsWhatIsKnown(t *testing.T) {
	dir := t.TempDir()
	q := openQueue(t, dir)
	there := openQueue(t, t.TempDir())
	recovered(t, q)
	recovered(t, there)
	for _, size := range []int{0, 500, pieceSize + 9} {
		m := message(pattern(size, size), "bob@example.net", "carol@example.net")
		m.Held = "moving"
		rec := add(t, there, m)
		rec.Recipients[0].State, rec.Recipients[0].Host, rec.Attempts = Delivered, "mx.example", 3
		if _, err := settle(there, rec); err != nil {
			t.Fatal(err)
		}
		rec, content, err := there.Load(rec.ID)
		if err != nil {
			t.Fatal(err)
		}
		got, err := q.Restore(t.Context(), there.Name(), rec, content, false)
		if err != nil {
			t.Fatal(err)
		}
		want := *rec
		want.ID = got.ID
		if !bytes.Equal(appendRecord(nil, got), appendRecord(nil, &want)) || !bytes.Equal(contentOf(t, q, got.ID), pattern(size, size)) {
			t.Errorf("%d bytes: another message was restored", size)
		}
		for range 2 { // also after it was delivered, and after a restart
			if _, err := q.Restore(t.Context(), there.Name(), rec, content, true); !errors.Is(err, ErrRestored) {
				t.Errorf("%d bytes, again: %v", size, err)
			}
			got.Recipients[1].State = Delivered
			if _, err := settle(q, got); err != nil && !errors.Is(err, ErrNotFound) {
				t.Fatal(err)
			}
			closeQueue(t, q)
			q = openQueue(t, dir)
		}
	}
	if n := len(recovered(t, q)); n != 0 {
		t.Errorf("%d messages are left", n)
	}
}

// TestRestoreIntoTheSameQueue imports a backup where the messages came from.
func TestRestoreIntoTheSameQueue(t *testing.T) {
	q := openQueue(t, t.TempDir())
	recovered(t, q)
	here, gone := add(t, q, message(nil, "bob@example.net")), add(t, q, message(nil, "bob@example.net"))
	if err := remove(q, gone.ID); err != nil {
		t.Fatal(err)
	}
	q.marks.write(q.db.NewTransaction(true), 1) // nothing is known of the removal but that it is not here
	for _, rec := range []*Record{here, gone} {
		if _, err := q.Restore(t.Context(), q.Name(), rec, mail.Bytes(nil), false); !errors.Is(err, ErrRestored) {
			t.Errorf("%v", err)
		}
	}
	if _, err := q.Restore(t.Context(), q.Name(), here, mail.Bytes(nil), true); !errors.Is(err, ErrRestored) {
		t.Errorf("one that is here, as lost: %v", err)
	}
	if rec, err := q.Restore(t.Context(), q.Name(), gone, mail.Bytes(nil), true); err != nil || rec.ID <= gone.ID {
		t.Errorf("one that is not here, as lost: %v, %v", rec, err)
	}
	here.Recipients[0].State = Delivered
	if _, err := q.Restore(t.Context(), "elsewhere", here, mail.Bytes(nil), false); !errors.Is(err, ErrRestored) {
		t.Errorf("one of which all is done: %v", err)
	}
}
