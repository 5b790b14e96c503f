package report

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 9}, 3}} {
		before := slices.Clone(test.values)
		if got := Median(test.values); got != test.want || !slices.Equal(before, test.values) {
			t.Errorf("of %v it is %v, not %v; left: %v", before, got, test.want, test.values)
		}
	}
}

func records() []Record {
	rec := func(peer string, round int, rate, cpu, noise float64) Record {
		return Record{Peer: peer, Scenario: "e2e-4k", Round: round, Figures: map[string]float64{
			AcceptRate: 2 * rate, EndToEndRate: rate, CPU: cpu, Noise: noise}}
	}
	direct := Record{Peer: "direct", Scenario: "e2e-4k", Round: 1, Figures: map[string]float64{AcceptRate: 20000, EndToEndRate: 20000, Noise: .1}}
	return []Record{
		{Machine: &Machine{CPU: "abacus", Cores: 2, Command: "mtabench", Peers: []About{{Name: "mta", Version: "mta 1", Notes: "as shipped"}, {Name: "direct"}}}},
		direct,
		rec("postfix", 1, 500, 2.0, .1), rec("mta", 1, 6000, .20, .1),
		rec("mta", 2, 2000, .60, 1.5), rec("postfix", 2, 400, 3.0, .2),
		rec("postfix", 3, 600, 2.5, .1), rec("mta", 3, 5000, .25, .3),
	}
}

func table(s *Summary, base string) string {
	var b bytes.Buffer
	s.Table(&b, base)
	return b.String()
}

func TestTable(t *testing.T) {
	text := table(Summarize(records(), 0), "postfix")
	for _, want := range []string{
		"2 × abacus", "- mta: mta 1; as shipped\n", "- direct: \n", "median 0.10, at most 1.50",
		"| direct | 1 | 20000 | 20000 | 20.00 | 40.00 | – | – | – | 0.10 |",
		"| postfix | 3 | 1000 [800–1200] | 500 [400–600] | – | – | 2% | 2.500 | – | 0.10 |",
		"| mta | 3 | 10000 [4000–12000] | 5000 [2000–6000] | 10.00 | 10.00 | 25% | 0.250 | 0.100 | 0.30 |",
	} {
		if !strings.Contains(text, strings.TrimSuffix(want, "\n")) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if strings.Contains(text, "syncs") || strings.Contains(text, "drain") {
		t.Errorf("a column for what nobody measured:\n%s", text)
	}
	if strings.Contains(text, "WRONG") {
		t.Errorf("nothing was wrong:\n%s", text)
	}
}

func TestNoisyRecordsAreLeftOut(t *testing.T) {
	text := table(Summarize(records(), 1), "postfix")
	for _, want := range []string{"| mta | 2 | 11000 [10000–12000] |", "1 records were noisier", "at most 0.30"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
}

func TestWhatWentWrongIsTold(t *testing.T) {
	all := append(records(),
		Record{Peer: "exim", Scenario: "e2e-4k", Round: 1, Error: "does not greet"},
		Record{Peer: "mta", Scenario: "e2e-4k", Round: 4, Wrong: "1 lost\n2 doubled", Figures: map[string]float64{Noise: 9}})
	s := Summarize(all, 1) // also where the record is too noisy to count
	text := table(s, "mta")
	for _, want := range []string{"WRONG: exim e2e-4k round 1: does not greet", "WRONG: mta e2e-4k round 4: 1 lost; 2 doubled"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if strings.Contains(text, "| exim |") {
		t.Errorf("a row for who could not be measured:\n%s", text)
	}
}

func TestJSONHasTheMedians(t *testing.T) {
	var b bytes.Buffer
	if err := Summarize(records(), 0).JSON(&b); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Machines []Machine
		Rows     []Row
	}
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(got.Rows, func(r Row) bool { return r.Peer == "mta" })
	if i < 0 || got.Rows[i].Runs != 3 || got.Rows[i].Median[EndToEndRate] != 5000 || got.Rows[i].High[CPU] != .60 || len(got.Machines) != 1 {
		t.Errorf("%s", b.String())
	}
}

func TestRecordsAreReadBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.jsonl")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records() {
		if err := json.NewEncoder(f).Encode(r); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	got, err := Read(path, path)
	if err != nil || len(got) != 2*len(records()) || got[1].Figures[AcceptRate] != 20000 || got[0].Machine.CPU != "abacus" {
		t.Errorf("%d records, %v", len(got), err)
	}
	if err := os.WriteFile(path, []byte("{}\nnonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil || !strings.Contains(err.Error(), path+": line 2 is no record") {
		t.Errorf("nonsense: %v", err)
	}
}
