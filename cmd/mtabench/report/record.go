// Package report keeps what was measured, one record for each peer, scenario and round, and makes the table: medians, and
// ratios to one of the peers. Records are lines of JSON, so that runs can be added to one another.
package report

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
)

// The names of the figures. Rates are messages a second, times seconds unless the name says otherwise.
const (
	Accepted     = "accepted"
	Refused      = "refused" // 4xx, 5xx and broken connections
	AcceptRate   = "accept_rate"
	AcceptP50    = "accept_p50_ms"
	AcceptP99    = "accept_p99_ms"
	Delivered    = "delivered"
	Missing      = "missing" // accepted, not delivered when we stopped waiting
	Queued       = "queued"  // of which the server says that it has them
	EndToEndRate = "e2e_rate"
	TransitP50   = "transit_p50_ms" // from the 250 to the last recipient
	TransitP99   = "transit_p99_ms"
	Transactions = "transactions" // at the sink
	CPU          = "cpu_s_per_1000"
	RSS          = "peak_rss_mib"
	Anon         = "peak_anon_mib"
	Processes    = "processes"
	Written      = "written_kib_per_message"
	Disk         = "disk_kib_per_message" // of the whole machine
	Syncs        = "syncs_per_message"
	Flushes      = "flushes_per_message" // of the whole machine
	Startup      = "startup_ms"
	Self         = "generator_cores"
	Noise        = "other_cores" // CPU of everything else, in cores
	Stolen       = "stolen_cores"

	FillFirst     = "fill_first_rate" // of the first tenth that is queued
	FillLast      = "fill_last_rate"  // of the last tenth
	FillShare     = "fill_share"      // the last tenth against the first
	FullRSS       = "full_rss_mib"
	FullAnon      = "full_anon_mib"
	DrainFirst    = "drain_first_s" // from the sink's return, or the restart, to the first delivery
	DrainRate     = "drain_rate"
	Ready         = "restart_ready_s" // from the restart to the first 220
	ReadyRSS      = "restart_rss_mib"
	ReadyAnon     = "restart_anon_mib"
	FirstDelivery = "restart_first_delivery_s" // from the restart
	ListFirst     = "list_first_s"             // to the first message of a filtered list, while the queue is drained; the worst
	ListRate      = "list_rate"                // messages that it lists in a second
	DeadQueued    = "dead_queued"              // messages for a dead host
	DeadRate      = "dead_rate_share"          // the rate of other mail beside them, against that before
	DeadP99       = "dead_p99_share"           // the same of the 99th percentile, from the first command to the recipient
	RetryRate     = "dead_retry_rate_share"    // both while an operator has all of them tried again
	RetryP99      = "dead_retry_p99_share"
	ListShare     = "list_drain_share" // the rate of the drain beside a list against that without one
)

// Record is one measurement.
type Record struct {
	Peer     string             `json:"peer"`
	Scenario string             `json:"scenario"`
	Round    int                `json:"round"`
	Error    string             `json:"error,omitempty"`  // it could not be measured
	Wrong    string             `json:"wrong,omitempty"`  // what the checker found
	Sample   string             `json:"sample,omitempty"` // the first refusal
	Figures  map[string]float64 `json:"figures,omitempty"`

	Machine *Machine `json:"machine,omitempty"` // the first record of a run tells where it was made, and nothing else
}

// Machine is where a run was made, and with what.
type Machine struct {
	Time       string   `json:"time"`
	Command    string   `json:"command"`
	CPU        string   `json:"cpu"`
	Cores      int      `json:"cores"`
	MemoryGiB  float64  `json:"memory_gib"`
	Kernel     string   `json:"kernel"`
	FileSystem string   `json:"file_system"`
	SyncMS     float64  `json:"sync_ms"` // append of 4 KiB and fsync
	Go         string   `json:"go"`
	Notes      []string `json:"notes"` // what is not measured here, and why
	Peers      []About  `json:"peers"`
}

// About is what a peer is.
type About struct{ Name, Version, Notes string }

// Read reads the records of files.
func Read(paths ...string) ([]Record, error) {
	var all []Record
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		records, err := decode(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, records...)
	}
	return all, nil
}

func decode(r io.Reader) ([]Record, error) {
	var all []Record
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		var rec Record
		if err := json.Unmarshal(lines.Bytes(), &rec); err != nil {
			return nil, fmt.Errorf("line %d is no record: %w", n, err)
		}
		all = append(all, rec)
	}
	return all, lines.Err()
}

// Median is the middle of the values, or the mean of the two in the middle.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(values))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}
