package engine

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLedgerJudges: a message may be given to a store again where the process that had it was killed before its answer was out,
// and not where another reason would be needed.
func TestLedgerJudges(t *testing.T) {
	t.Parallel()
	said := func(pid int, id string) entry { return entry{PID: pid, Answered: id} }
	asked := func(pid int, id string) entry { return entry{PID: pid, Stored: "tag", ID: id, To: "ann@kill.example"} }
	many := []entry{asked(1, "a"), said(1, "a")}
	for range diesWithIt {
		many = append(many, said(1, "other"))
	}
	for name, c := range map[string]struct {
		list []entry
		want int
	}{
		"no answer":                     {[]entry{asked(1, "a"), asked(1, "a"), said(1, "a")}, 0},
		"answered, and the same again":  {[]entry{asked(1, "a"), said(1, "a"), asked(1, "a")}, 1},
		"answered, and then killed":     {[]entry{asked(1, "a"), said(1, "a"), asked(2, "a"), said(2, "a")}, 0},
		"again by the next one as well": {[]entry{asked(1, "a"), said(1, "a"), asked(2, "a"), said(2, "a"), asked(2, "a")}, 1},
		"answered long before":          {append(many, asked(2, "a")), 1},
	} {
		path := filepath.Join(t.TempDir(), "ledger")
		var b strings.Builder
		for _, e := range c.list {
			line, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			b.Write(append(line, '\n'))
		}
		if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := newLedger(path).complaints(); len(got) != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
