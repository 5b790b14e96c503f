//go:build linux

package scenario

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pabal-mta/mta/cmd/mtabench/ledger"
	"github.com/pabal-mta/mta/cmd/mtabench/load"
	"github.com/pabal-mta/mta/cmd/mtabench/peer"
	"github.com/pabal-mta/mta/cmd/mtabench/report"
	"github.com/pabal-mta/mta/cmd/mtabench/sink"
)

func TestFind(t *testing.T) {
	names := map[string]bool{}
	for _, s := range All(7) {
		if names[s.Name] || s.Doc == "" || s.run == nil {
			t.Errorf("%+v", s)
		}
		names[s.Name] = true
		if s.load.Connections > 0 && (s.load.Time <= 0 || s.drain <= 0) {
			t.Errorf("%s has no end: %+v", s.Name, s)
		}
	}
	found, err := Find([]string{"e2e-4k", "million"}, 7)
	if err != nil || len(found) != 2 || found[1].load.Messages != 7 {
		t.Errorf("%+v, %v", found, err)
	}
	if _, err := Find([]string{"e2e-4kk"}, 7); err == nil || !strings.Contains(err.Error(), "there are: idle, acc-c1-p1") {
		t.Errorf("%v", err)
	}
}

// direct runs a scenario on the way without a server, which needs no rights.
func direct(ctx context.Context, t *testing.T, s Scenario) report.Record {
	t.Helper()
	d := sink.New("127.0.0.1:0")
	if err := d.Up(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Down)
	p, err := peer.Find(peer.Direct)
	if err != nil {
		t.Fatal(err)
	}
	port := int(netip.MustParseAddrPort(d.Addr()).Port())
	b := &Bench{Dir: t.TempDir(), Groups: t.TempDir(), Sink: d, SinkPort: port, Progress: t.Logf}
	return b.Run(ctx, p, s, 1)
}

func TestDirect(t *testing.T) {
	s := Scenario{Name: "few", run: through, drain: time.Minute,
		load: load.Spec{Connections: 4, PerConn: 10, Size: 2000, Recipients: 3, Messages: 100, Time: time.Minute}}
	r := direct(t.Context(), t, s)
	f := r.Figures
	if r.Error != "" || r.Wrong != "" || f[report.Accepted] != 100 || f[report.Delivered] != 100 || f[report.Missing] != 0 {
		t.Errorf("%+v", r)
	}
	if f[report.AcceptRate] <= 0 || f[report.EndToEndRate] <= 0 || f[report.AcceptP99] < f[report.AcceptP50] {
		t.Errorf("%+v", f)
	}
	if _, ok := f[report.CPU]; ok {
		t.Error("there is no server, and yet it has used CPU")
	}
}

func TestWhatIsNotForAPeerIsAnError(t *testing.T) {
	for _, s := range All(10) {
		if s.Name != "idle" && s.Name != "queue50k" && !slices.Contains(Long, s.Name) {
			continue
		}
		if r := direct(t.Context(), t, s); r.Error == "" || r.Figures != nil {
			t.Errorf("%s: %+v", s.Name, r)
		}
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, s := range All(10) {
		if r := direct(ctx, t, s); r.Error == "" {
			t.Errorf("%s: %+v", s.Name, r)
		}
	}
}

func TestTenths(t *testing.T) {
	var a ledger.Audit
	if first, last := tenths(a); first != 0 || last != 0 {
		t.Errorf("of nothing: %v, %v", first, last)
	}
	at := time.Duration(0)
	for i := range 1000 {
		at += time.Millisecond
		if i >= 900 {
			at += time.Millisecond
		}
		a.AcceptTimes = append(a.AcceptTimes, at)
	}
	if first, last := tenths(a); int(first+.5) != 1000 || int(last+.5) != 500 {
		t.Errorf("%v, %v", first, last)
	}
}
