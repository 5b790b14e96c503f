package sdk

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
)

const (
	reportEvery   = time.Second
	reportTimeout = 5 * time.Second
)

// metrics gathers changes and reports them now and then: a counter costs its caller no call to the server.
type metrics struct {
	log    *slog.Logger
	report func(context.Context, []calls.Sample) error
	turn   sync.Mutex // held while a report is under way: changes arrive in order

	mu      sync.Mutex
	series  map[string]*series
	refused bool // a refusal was logged
	timer   *time.Timer
	closed  bool
}

// series is what has changed of one metric since the last report.
type series struct {
	gauge, changed bool
	value          float64
}

func newMetrics(log *slog.Logger, report func(context.Context, []calls.Sample) error) *metrics {
	return &metrics{log: log, report: report, series: map[string]*series{}}
}

// Count implements Metrics.
func (m *metrics) Count(name string, n float64) { m.change(name, false, n) }

// Gauge implements Metrics.
func (m *metrics) Gauge(name string, v float64) { m.change(name, true, v) }

func (m *metrics) change(name string, gauge bool, v float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.series[name]
	if s == nil && calls.IsMetricName(name) && len(m.series) < calls.MaxSeries {
		s = &series{gauge: gauge}
		m.series[name] = s
	}
	if s == nil || s.gauge != gauge || !gauge && !(v >= 0) {
		if !m.refused {
			m.log.Warn("a metric is not counted; see sdk.Metrics for what a name and a value may be", "name", name, "value", v)
		}
		m.refused = true
		return
	}
	if gauge {
		s.value = v
	} else {
		s.value += v
	}
	s.changed = true
	m.wake()
}

// wake sees to it that a report follows. The caller holds mu.
func (m *metrics) wake() {
	if m.timer == nil && !m.closed {
		m.timer = time.AfterFunc(reportEvery, m.flush)
	}
}

// flush reports what has changed. What could not be reported is reported with what comes next.
func (m *metrics) flush() {
	m.turn.Lock()
	defer m.turn.Unlock()
	samples := m.take()
	if len(samples) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), reportTimeout)
	defer cancel()
	if err := m.report(ctx, samples); err != nil {
		m.log.Debug("reporting metrics", "error", err)
		m.giveBack(samples)
	}
}

func (m *metrics) take() []calls.Sample {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.timer = nil
	var samples []calls.Sample
	for name, s := range m.series {
		if s.changed {
			samples = append(samples, calls.Sample{Name: name, Gauge: s.gauge, Value: s.value})
			s.changed = false
			if !s.gauge {
				s.value = 0
			}
		}
	}
	return samples
}

func (m *metrics) giveBack(samples []calls.Sample) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range samples {
		s := m.series[p.Name]
		s.changed = true
		if !p.Gauge {
			s.value += p.Value
		}
	}
	m.wake()
}

// close reports for the last time.
func (m *metrics) close() {
	m.mu.Lock()
	m.closed = true
	if m.timer != nil {
		m.timer.Stop()
	}
	m.mu.Unlock()
	m.flush()
}
