package trial

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/pabal-mta/mta/core/torture/ledger"
)

// Mutant is one deliberate mistake in the server. A harness that does not catch it proves nothing.
type Mutant struct {
	Name   string
	Edits  []Edit
	Caught []ledger.Kind
	By     Means
}

// Edit is a change of a source file.
type Edit struct {
	File   string // within the module
	Anchor string // what stands in the file, once
	Wrong  string // what is put in its place
	Add    string // and at the file's end
}

// Means is the fault that shows a mistake.
type Means uint8

// The means.
const (
	ByKill Means = iota
	ByCut        // of the power
	ByWall       // the wall clock is set
)

// Mutants are the mistakes. Each is armed by its name in the environment variable MTA_MUTANT, so that one build has all.
var Mutants = []Mutant{
	{
		Name: "no sync", Edits: []Edit{{
			File:   "core/journal/journal.go",
			Anchor: "	if err := syncData(f); err != nil {", Wrong: "	if mutant(\"no sync\") {\n	} else if err := syncData(f); err != nil {",
		}},
		Caught: []ledger.Kind{ledger.Lost}, By: ByCut,
	},
	{
		Name: "250 before the commit", Edits: []Edit{{
			File:   "core/queue/write.go",
			Anchor: "	o, err := q.finish(ctx, d)\n	if err == nil {\n		err = q.do(ctx, o, false)\n	}\n	if err != nil {\n		q.forget(d)",
			Wrong: "	o, err := q.finish(ctx, d)\n	if err == nil && mutant(\"250 before the commit\") {\n		o.done = func(error) {}\n		time.AfterFunc(20*time.Millisecond, func() { q.submit(o, false) })\n" +
				"	} else if err == nil {\n		err = q.do(ctx, o, false)\n	}\n	if err != nil {\n		q.forget(d)",
		}},
		Caught: []ledger.Kind{ledger.Lost, ledger.Doubled, ledger.Resurrected},
	},
	{
		Name: "outcome before the reply", Edits: []Edit{{
			File:   "core/schedule/lease.go",
			Anchor: "j.outcomes = s.deliver(j.request)", Wrong: "j.outcomes = s.early(j.request)",
			Add: `
func (s *Schedule) early(d *deliver.Job) []deliver.Outcome {
	if !mutant("outcome before the reply") {
		return s.deliver(d)
	}
	d.Next = nil
	go s.deliver(d)
	list := make([]deliver.Outcome, len(d.Envelope.To))
	for i := range list {
		list[i] = deliver.Outcome{Class: deliver.Delivered, Time: time.Now(), Reply: mail.NewReply(250, "2.0.0", "early")}
	}
	return list
}
`,
		}},
		Caught: []ledger.Kind{ledger.Lost},
	},
	{
		Name: "delete before the outcome", Edits: []Edit{{
			File:   "core/schedule/lease.go",
			Anchor: "	default:\n		s.attempt(j)\n	}\n	s.ended(j)\n",
			Wrong:  "	default:\n		if mutant(\"delete before the outcome\") {\n			s.o.Queue.Delete(l.id, func(error) {})\n		}\n		s.attempt(j)\n	}\n	s.ended(j)\n",
		}},
		Caught: []ledger.Kind{ledger.Lost},
	},
	{
		Name: "lease not returned after a crash", Edits: []Edit{{
			File:   "core/schedule/schedule.go",
			Anchor: "	s.settleIn(at, home)\n	if rec.Held != \"\" {\n",
			Wrong:  "	s.settleIn(at, home)\n	if rec.Held != \"\" || mutant(\"lease not returned after a crash\") && rec.Attempts == 0 {\n",
		}},
		Caught: []ledger.Kind{ledger.Stuck},
	},
	{
		Name: "removal not written", Edits: []Edit{{
			File:   "core/queue/write.go",
			Anchor: "	if !rec.open() {\n		o.remove(rec)\n",
			Wrong:  "	if !rec.open() {\n		o.remove(rec)\n		if mutant(\"removal not written\") {\n			o.drops, o.removed = nil, 0\n		}\n",
		}},
		Caught: []ledger.Kind{ledger.Resurrected, ledger.Doubled},
	},
	{
		Name: "message left out of a checkpoint", Edits: []Edit{{
			File:   "core/queue/checkpoint.go",
			Anchor: "	for _, k := range q.still(l) {\n",
			Wrong: "	for _, k := range q.still(l) {\n		if mutant(\"message left out of a checkpoint\") && k.prefix == keyRecord && l.keys[k].state != gone {\n" +
				"			continue\n		}\n",
		}},
		Caught: []ledger.Kind{ledger.Lost},
	},
	{
		Name: "journal begun anew before the store was synced", Edits: []Edit{{
			File: "core/queue/open.go", Anchor: "		WithSyncWrites(true).", Wrong: "		WithSyncWrites(!mutant(\"journal begun anew before the store was synced\")).",
		}, { // and its files take turns sooner
			File: "core/queue/checkpoint.go", Anchor: "	if f.journal.Full(q.volume(group)) || len(f.active.keys) >= f.maxKeys {\n",
			Wrong: "	sooner := int64(0)\n	if mutant(\"journal begun anew before the store was synced\") {\n		sooner = journal.FileSize - 256<<10\n	}\n	if f.journal.Full(q.volume(group)+sooner) || len(f.active.keys) >= f.maxKeys {\n",
		}},
		Caught: []ledger.Kind{ledger.Lost}, By: ByCut,
	},
	{
		Name: "age by the wall clock", Edits: []Edit{{
			File: "core/schedule/settle.go", Anchor: "	t.age = s.table.age(e, t.now)\n",
			Wrong: "	t.age = s.table.age(e, t.now)\n	if mutant(\"age by the wall clock\") && l.rec != nil {\n		t.age = t.now.Round(0).Sub(l.rec.Received.Round(0))\n	}\n",
		}},
		Caught: []ledger.Kind{ledger.Misreported}, By: ByWall,
	},
	{
		Name: "IDs that go back with the clock", Edits: []Edit{{
			File: "core/queue/id.go", Anchor: "	s.last = max(s.last+1, ID(max(now.UnixMilli(), 0))<<counterBits)\n",
			Wrong: "	if at := ID(max(now.UnixMilli(), 0)) << counterBits; mutant(\"IDs that go back with the clock\") && s.last>>counterBits != at>>counterBits {\n		s.last = at\n		return at\n	}\n" +
				"	s.last = max(s.last+1, ID(max(now.UnixMilli(), 0))<<counterBits)\n",
		}},
		Caught: []ledger.Kind{ledger.Lost, ledger.Changed, ledger.Doubled, ledger.Resurrected}, By: ByWall,
	},
}

// armed is the file that each changed package gets.
const armed = `package %s

import "os"

func mutant(name string) bool { return os.Getenv("MTA_MUTANT") == name }
`

// Mutate returns the changed source files by their names within the module, armed ones and all. A mutant whose anchor is
// not found once is an error: the source has moved on, and the mutant has to follow it.
func Mutate(module string, mutants []Mutant) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, m := range mutants {
		for _, e := range m.Edits {
			if err := e.apply(module, files); err != nil {
				return nil, fmt.Errorf("mutant %q: %w", m.Name, err)
			}
		}
	}
	return files, nil
}

// apply changes a file, as others have left it.
func (e *Edit) apply(module string, files map[string][]byte) (err error) {
	text, ok := files[e.File]
	if !ok {
		if text, err = os.ReadFile(filepath.Join(module, e.File)); err != nil {
			return err
		}
	}
	if n := bytes.Count(text, []byte(e.Anchor)); n != 1 {
		return fmt.Errorf("its anchor is found %d times in %s, and not once: %q", n, e.File, e.Anchor)
	}
	files[e.File] = append(bytes.Replace(text, []byte(e.Anchor), []byte(e.Wrong), 1), e.Add...)
	room := filepath.Dir(e.File)
	files[filepath.Join(room, "mutant.go")] = fmt.Appendf(nil, armed, filepath.Base(room))
	return nil
}

// BuildMutants builds the server with all the mutants in it, each asleep, and a wall clock that can be set.
func BuildMutants(ctx context.Context, module, dir string) (program string, err error) {
	files, err := Mutate(module, Mutants)
	if err != nil {
		return "", err
	}
	sources, err := withWall(ctx)
	if err != nil {
		return "", err
	}
	for name, text := range files {
		sources[filepath.Join(module, name)] = text
	}
	var overlay struct{ Replace map[string]string }
	overlay.Replace = map[string]string{}
	for name, text := range sources {
		at := filepath.Join(dir, "source", name)
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			return "", err
		}
		if err := os.WriteFile(at, text, 0o600); err != nil {
			return "", err
		}
		overlay.Replace[name] = at
	}
	list, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	at := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(at, list, 0o600); err != nil {
		return "", err
	}
	program = filepath.Join(dir, "mta-mutants")
	return program, Build(ctx, module, program, "-overlay", at)
}

// Arm makes the program the one with this mistake.
func (m *Mutant) Arm(program string) Program {
	return Program{Path: program, Env: []string{"MTA_MUTANT=" + m.Name}}
}
