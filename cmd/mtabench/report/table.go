package report

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Summary is what records add up to: for each scenario and peer, in the order of their first record, the medians.
type Summary struct {
	Rows     []*Row
	Machines []*Machine
	Wrong    []string // all that went wrong, a line each
	LeftOut  int      // records that were too noisy
}

// Row is a peer in a scenario.
type Row struct {
	Scenario string             `json:"scenario"`
	Peer     string             `json:"peer"`
	Runs     int                `json:"runs"`
	Median   map[string]float64 `json:"median"`
	Low      map[string]float64 `json:"low"`
	High     map[string]float64 `json:"high"`

	values map[string][]float64
}

// Summarize adds up. Records with more noise, in cores, are left out; 0 keeps all.
func Summarize(records []Record, maxNoise float64) *Summary {
	s := &Summary{}
	for i := range records {
		r := &records[i]
		switch {
		case r.Machine != nil:
			s.Machines = append(s.Machines, r.Machine)
			continue
		case r.Error != "":
			s.Wrong = append(s.Wrong, fmt.Sprintf("%s %s round %d: %s", r.Peer, r.Scenario, r.Round, r.Error))
			continue
		case r.Wrong != "":
			s.Wrong = append(s.Wrong, fmt.Sprintf("%s %s round %d: %s", r.Peer, r.Scenario, r.Round, oneLine(r.Wrong)))
		case maxNoise > 0 && r.Figures[Noise] > maxNoise:
			s.LeftOut++
			continue
		}
		s.row(r.Scenario, r.Peer).add(r)
	}
	for _, row := range s.Rows {
		row.finish()
	}
	return s
}

func oneLine(text string) string { return strings.ReplaceAll(text, "\n", "; ") }

func (s *Summary) find(scenario, peer string) *Row {
	i := slices.IndexFunc(s.Rows, func(r *Row) bool { return r.Scenario == scenario && r.Peer == peer })
	if i < 0 {
		return nil
	}
	return s.Rows[i]
}

func (s *Summary) row(scenario, peer string) *Row {
	row := s.find(scenario, peer)
	if row == nil {
		row = &Row{Scenario: scenario, Peer: peer, values: map[string][]float64{},
			Median: map[string]float64{}, Low: map[string]float64{}, High: map[string]float64{}}
		s.Rows = append(s.Rows, row)
	}
	return row
}

func (r *Row) add(rec *Record) {
	r.Runs++
	for name, value := range rec.Figures {
		r.values[name] = append(r.values[name], value)
	}
}

func (r *Row) finish() {
	for name, values := range r.values {
		r.Median[name], r.Low[name], r.High[name] = Median(values), slices.Min(values), slices.Max(values)
	}
}

// column is a column of the table: a figure, or the ratio of one to that of another peer.
type column struct {
	head, format, figure string
	to                   string // the peer; "" is the figure itself
}

// columns are those of the table. A column that no row of a scenario has a value for is not shown.
func columns(base string) []column {
	list := []column{
		{"acc/s", "%.0f", AcceptRate, ""}, {"p50 ms", "%.1f", AcceptP50, ""}, {"p99 ms", "%.1f", AcceptP99, ""},
		{"e2e/s", "%.0f", EndToEndRate, ""},
		{"acc × " + base, "%.2f", AcceptRate, base}, {"e2e × " + base, "%.2f", EndToEndRate, base},
		{"e2e / direct", "%.0f%%", EndToEndRate, "direct"},
		{"CPU s/1000", "%.3f", CPU, ""}, {"CPU × " + base, "%.3f", CPU, base},
		{"anon MiB", "%.0f", Anon, ""}, {"RSS MiB", "%.0f", RSS, ""}, {"KiB/msg", "%.1f", Written, ""}, {"syncs/msg", "%.3f", Syncs, ""},
		{"fill first/s", "%.0f", FillFirst, ""}, {"fill last/s", "%.0f", FillLast, ""}, {"last/first", "%.2f", FillShare, ""},
		{"full RSS", "%.0f", FullRSS, ""}, {"full anon", "%.0f", FullAnon, ""},
		{"ready s", "%.2f", Ready, ""}, {"ready RSS", "%.0f", ReadyRSS, ""}, {"first delivery s", "%.2f", FirstDelivery, ""},
		{"first out s", "%.2f", DrainFirst, ""},
		{"drain/s", "%.0f", DrainRate, ""}, {"drain × " + base, "%.2f", DrainRate, base},
		{"list first s", "%.2f", ListFirst, ""}, {"listed/s", "%.0f", ListRate, ""}, {"drain beside list", "%.2f", ListShare, ""},
		{"dead queued", "%.0f", DeadQueued, ""}, {"rate beside", "%.2f", DeadRate, ""}, {"p99 beside", "%.2f", DeadP99, ""},
		{"rate, retried", "%.2f", RetryRate, ""}, {"p99, retried", "%.2f", RetryP99, ""},
		{"start ms", "%.0f", Startup, ""}, {"missing", "%.0f", Missing, ""}, {"noise cores", "%.2f", Noise, ""},
	}
	return list
}

// value of a column in a row; false without one.
func (s *Summary) value(c column, r *Row) (float64, bool) {
	v, ok := r.Median[c.figure]
	if c.to == "" {
		return v, ok
	}
	base := s.find(r.Scenario, c.to)
	if !ok || base == nil || base == r || base.Median[c.figure] == 0 {
		return 0, false
	}
	ratio := v / base.Median[c.figure]
	if strings.HasSuffix(c.format, "%%") {
		ratio *= 100
	}
	return ratio, true
}

// Table writes the summary as Markdown. base is the peer that ratios are to.
func (s *Summary) Table(w io.Writer, base string) {
	for _, m := range s.Machines {
		m.write(w)
	}
	s.writeNoise(w)
	var done []string
	for _, row := range s.Rows {
		if !slices.Contains(done, row.Scenario) {
			done = append(done, row.Scenario)
			s.scenario(w, row.Scenario, base)
		}
	}
	for _, line := range s.Wrong {
		fmt.Fprintf(w, "\nWRONG: %s\n", line)
	}
}

func (s *Summary) scenario(w io.Writer, name, base string) {
	var rows []*Row
	for _, r := range s.Rows {
		if r.Scenario == name {
			rows = append(rows, r)
		}
	}
	shown := slices.DeleteFunc(columns(base), func(c column) bool {
		return !slices.ContainsFunc(rows, func(r *Row) bool { _, ok := s.value(c, r); return ok })
	})
	fmt.Fprintf(w, "\n### %s\n\n| peer | n |", name)
	for _, c := range shown {
		fmt.Fprintf(w, " %s |", c.head)
	}
	fmt.Fprintf(w, "\n|%s\n", strings.Repeat("---|", len(shown)+2))
	for _, r := range rows {
		fmt.Fprintf(w, "| %s | %d |", r.Peer, r.Runs)
		for _, c := range shown {
			fmt.Fprintf(w, " %s |", s.cell(c, r))
		}
		fmt.Fprintln(w)
	}
}

// cell is a median; for the rates, with what the rounds lay between.
func (s *Summary) cell(c column, r *Row) string {
	v, ok := s.value(c, r)
	if !ok {
		return "–"
	}
	text := fmt.Sprintf(c.format, v)
	if r.Runs > 1 && c.to == "" && (c.figure == AcceptRate || c.figure == EndToEndRate) {
		text += fmt.Sprintf(" [%.0f–%.0f]", r.Low[c.figure], r.High[c.figure])
	}
	return text
}

func (m *Machine) write(w io.Writer) {
	fmt.Fprintf(w, "%s: %d × %s, %.0f GiB, Linux %s, %s, append of 4 KiB and fsync %.2f ms, %s\n\n    %s\n\n",
		m.Time, m.Cores, m.CPU, m.MemoryGiB, m.Kernel, m.FileSystem, m.SyncMS, m.Go, m.Command)
	for _, p := range m.Peers {
		fmt.Fprintf(w, "- %s: %s\n", p.Name, joinNonEmpty(p.Version, p.Notes))
	}
	for _, note := range m.Notes {
		fmt.Fprintf(w, "- %s\n", note)
	}
}

func joinNonEmpty(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), "; ")
}

// writeNoise says how far the figures are to be trusted.
func (s *Summary) writeNoise(w io.Writer) {
	var noise, stolen []float64
	for _, r := range s.Rows {
		noise = append(noise, r.values[Noise]...)
		stolen = append(stolen, r.values[Stolen]...)
	}
	if len(noise) == 0 {
		return
	}
	fmt.Fprintf(w, "\nNoise, CPU of everything else in cores: median %.2f, at most %.2f", Median(noise), slices.Max(noise))
	if len(stolen) > 0 {
		fmt.Fprintf(w, "; taken by the host: median %.2f, at most %.2f", Median(stolen), slices.Max(stolen))
	}
	fmt.Fprint(w, ".")
	if s.LeftOut > 0 {
		fmt.Fprintf(w, " %d records were noisier and are left out.", s.LeftOut)
	}
	fmt.Fprintln(w)
}

// JSON writes the summary as one object.
func (s *Summary) JSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(map[string]any{"machines": s.Machines, "rows": s.Rows, "wrong": s.Wrong, "left_out": s.LeftOut})
}
