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
	File   string // within the module
	Anchor string // what stands in the file, once
	Wrong  string // what is put in its place
	Caught []ledger.Kind
	ByCut  bool // only a cut of the power can show it
	Add    string
}

// Mutants are the mistakes. Each is armed by its name in the environment variable MTA_MUTANT, so that one build has all.
var Mutants = []Mutant{
	{
		Name: "no sync", File: "core/journal/journal.go",
		Anchor: "	if err := syncData(f); err != nil {", Wrong: "	if mutant(\"no sync\") {\n	} else if err := syncData(f); err != nil {",
		Caught: []ledger.Kind{ledger.Lost}, ByCut: true,
	},
	{
		Name: "250 before the commit", File: "core/queue/write.go",
		Anchor: "	o, err := q.finish(ctx, d)\n	if err == nil {\n		err = q.do(ctx, o, false)\n	}\n	if err != nil {\n		q.forget(d)",
		Wrong: "	o, err := q.finish(ctx, d)\n	if err == nil && mutant(\"250 before the commit\") {\n		o.done = func(error) {}\n		time.AfterFunc(20*time.Millisecond, func() { q.submit(o, false) })\n" +
			"	} else if err == nil {\n		err = q.do(ctx, o, false)\n	}\n	if err != nil {\n		q.forget(d)",
		Caught: []ledger.Kind{ledger.Lost, ledger.Doubled, ledger.Resurrected},
	},
	{
		Name: "outcome before the reply", File: "core/schedule/lease.go",
		Anchor: "j.outcomes = s.deliver(&deliver.Job{", Wrong: "j.outcomes = s.early(&deliver.Job{",
		Caught: []ledger.Kind{ledger.Lost},
		Add: `
func (s *Schedule) early(d *deliver.Job) []deliver.Outcome {
	if !mutant("outcome before the reply") {
		return s.deliver(d)
	}
	go s.deliver(d)
	list := make([]deliver.Outcome, len(d.Envelope.To))
	for i := range list {
		list[i] = deliver.Outcome{Class: deliver.Delivered, Time: time.Now(), Reply: mail.NewReply(250, "2.0.0", "early")}
	}
	return list
}
`,
	},
	{
		Name: "delete before the outcome", File: "core/schedule/lease.go",
		Anchor: "	default:\n		s.attempt(j)\n	}\n	s.ended(j)\n",
		Wrong:  "	default:\n		if mutant(\"delete before the outcome\") {\n			s.o.Queue.Delete(l.id, func(error) {})\n		}\n		s.attempt(j)\n	}\n	s.ended(j)\n",
		Caught: []ledger.Kind{ledger.Lost},
	},
	{
		Name: "lease not returned after a crash", File: "core/schedule/schedule.go",
		Anchor: "	s.settleIn(at, home)\n	if rec.Held != \"\" {\n",
		Wrong:  "	s.settleIn(at, home)\n	if rec.Held != \"\" || mutant(\"lease not returned after a crash\") && rec.Attempts == 0 {\n",
		Caught: []ledger.Kind{ledger.Stuck},
	},
	{
		Name: "removal not written", File: "core/queue/write.go",
		Anchor: "	if !rec.open() {\n		o.remove(rec)\n",
		Wrong:  "	if !rec.open() {\n		o.remove(rec)\n		if mutant(\"removal not written\") {\n			o.drops, o.removed = nil, 0\n		}\n",
		Caught: []ledger.Kind{ledger.Resurrected, ledger.Doubled},
	},
	{
		Name: "message left out of a checkpoint", File: "core/queue/checkpoint.go",
		Anchor: "	for _, k := range q.still(l) {\n",
		Wrong: "	for _, k := range q.still(l) {\n		if mutant(\"message left out of a checkpoint\") && k.prefix == keyRecord && l.keys[k].state != gone {\n" +
			"			continue\n		}\n",
		Caught: []ledger.Kind{ledger.Lost},
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
		text, ok := files[m.File]
		if !ok {
			var err error
			if text, err = os.ReadFile(filepath.Join(module, m.File)); err != nil {
				return nil, fmt.Errorf("mutant %q: %w", m.Name, err)
			}
		}
		if n := bytes.Count(text, []byte(m.Anchor)); n != 1 {
			return nil, fmt.Errorf("mutant %q: its anchor is found %d times in %s, and not once: %q", m.Name, n, m.File, m.Anchor)
		}
		text = bytes.Replace(text, []byte(m.Anchor), []byte(m.Wrong), 1)
		files[m.File] = append(text, m.Add...)
		room := filepath.Dir(m.File)
		files[filepath.Join(room, "mutant.go")] = fmt.Appendf(nil, armed, filepath.Base(room))
	}
	return files, nil
}

// BuildMutants builds the server with all the mutants in it, each asleep.
func BuildMutants(ctx context.Context, module, dir string) (program string, err error) {
	files, err := Mutate(module, Mutants)
	if err != nil {
		return "", err
	}
	var overlay struct{ Replace map[string]string }
	overlay.Replace = map[string]string{}
	for name, text := range files {
		at := filepath.Join(dir, "source", name)
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			return "", err
		}
		if err := os.WriteFile(at, text, 0o600); err != nil {
			return "", err
		}
		overlay.Replace[filepath.Join(module, name)] = at
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
