package queue

import (
	"bytes"
	"errors"
	"flag"
	"maps"
	"os"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// model is what a queue holds, in memory.
type model struct {
	dir  string
	q    *Queue
	recs map[ID]*Record
	body map[ID][]byte
	last ID
	seed int
}

func (m *model) open(t *rapid.T) {
	var err error
	if m.q, err = Open(m.dir, Options{MinFree: -1}); err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := m.q.Recover(t.Context(), func(rec *Record) error {
		n++
		return m.same(rec)
	}); err != nil || n != len(m.recs) {
		t.Fatalf("%d messages recovered, want %d: %v", n, len(m.recs), err)
	}
}

func (m *model) same(rec *Record) error {
	want, ok := m.recs[rec.ID]
	if !ok {
		return errors.New("a message that should not be there")
	}
	if !bytes.Equal(appendRecord(nil, rec), appendRecord(nil, want)) {
		return errors.New("another record")
	}
	return nil
}

func (m *model) message(t *rapid.T) (*Message, []byte) {
	m.seed++
	b := pattern(m.seed, rapid.SampledFrom([]int{0, 80, 1500, 9000, chunkSize + 1, pieceSize + 1}).Draw(t, "size"))
	msg := message(b, "bob@example.net", "cid@example.org")
	msg.Held = rapid.SampledFrom([]string{"", "", "why"}).Draw(t, "held")
	return msg, b
}

func (m *model) added(t *rapid.T, rec *Record, b []byte) {
	if rec.ID <= m.last {
		t.Fatalf("%v is not above %v", rec.ID, m.last)
	}
	m.last = rec.ID
	m.recs[rec.ID], m.body[rec.ID] = rec, b
}

func (m *model) pick(t *rapid.T) *Record {
	ids := slices.Sorted(maps.Keys(m.recs))
	if len(ids) == 0 {
		t.Skip("nothing queued")
	}
	return m.recs[rapid.SampledFrom(ids).Draw(t, "id")]
}

func (m *model) settle(t *rapid.T) {
	rec := m.pick(t)
	for _, i := range rec.Pending() {
		rec.Recipients[i].State = rapid.SampledFrom([]RecipientState{Pending, Pending, Delivered, Failed}).Draw(t, "state")
		rec.Recipients[i].Attempts++
	}
	rec.Held = rapid.SampledFrom([]string{"", "held"}).Draw(t, "held")
	var reports []*Message
	var bodies [][]byte
	for range rapid.IntRange(0, 2).Draw(t, "reports") {
		msg, b := m.message(t)
		reports, bodies = append(reports, msg), append(bodies, b)
	}
	added, err := settle(m.q, rec, reports...)
	if err != nil {
		t.Fatal(err)
	}
	if !rec.open() {
		delete(m.recs, rec.ID)
		delete(m.body, rec.ID)
	}
	for i, r := range added {
		m.added(t, r, bodies[i])
	}
}

// check compares all that can be asked.
func (m *model) check(t *rapid.T) {
	var stats Stats
	for _, rec := range m.recs {
		stats.Messages++
		stats.Bytes += rec.Size
		stats.Held += one(rec.Held != "")
	}
	got := m.q.Stats()
	if got.Messages != stats.Messages || got.Bytes != stats.Bytes || got.Held != stats.Held {
		t.Fatalf("%+v, want %+v", got, stats)
	}
	n := 0
	if err := m.q.List(t.Context(), Filter{}, func(rec *Record) error { n++; return m.same(rec) }); err != nil || n != len(m.recs) {
		t.Fatalf("%d messages listed, want %d: %v", n, len(m.recs), err)
	}
}

func TestQueueAgainstAModel(t *testing.T) {
	// A hundred stores would take a while; -rapid.checks overrides this.
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		if err := flag.Set("rapid.checks", "15"); err != nil {
			t.Fatal(err)
		}
		defer flag.Set("rapid.checks", f.DefValue)
	}
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "queue-model")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		m := &model{dir: dir, recs: map[ID]*Record{}, body: map[ID][]byte{}}
		m.open(t)
		defer func() { m.q.Close() }()
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				msg, b := m.message(t)
				rec, err := m.q.Add(t.Context(), msg)
				if err != nil {
					t.Fatal(err)
				}
				m.added(t, rec, b)
			},
			"settle": m.settle,
			"delete": func(t *rapid.T) {
				id := m.pick(t).ID
				if err := remove(m.q, id); err != nil {
					t.Fatal(err)
				}
				delete(m.recs, id)
				delete(m.body, id)
			},
			"load": func(t *rapid.T) {
				id := m.pick(t).ID
				if b, err := readAll(m.q, id); err != nil || !bytes.Equal(b, m.body[id]) {
					t.Fatalf("%v: another content: %v", id, err)
				}
			},
			"reopen": func(t *rapid.T) {
				if err := m.q.Close(); err != nil {
					t.Fatal(err)
				}
				m.open(t)
			},
			"": m.check,
		})
	})
}
