package admin

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pabal-mta/mta/core/event"
)

// Metrics counts events. No label holds an address, a message or anything else that a peer chooses: the number of series
// is bounded by the configuration.
type Metrics struct {
	registry *prometheus.Registry
	byEvent  map[event.Name]func(event.Event)
	plugins  *pluginSeries
}

// NewMetrics makes the metrics; status is asked at each scrape for what is a state and no count.
func NewMetrics(status func() Status) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "mta_" + name, Help: help}, labels)
		m.registry.MustRegister(c)
		return c
	}
	var (
		sessions = counter("sessions_total", "SMTP sessions begun.", "listener")
		refused  = counter("refused_total", "Commands and connections refused, by the first digit of the reply.", "listener", "class")
		logins   = counter("logins_total", "Logins tried.", "listener", "result")
		queued   = counter("messages_queued_total", "Messages taken into the queue; reports have the listener \"\".", "listener")
		bytes    = counter("bytes_queued_total", "Bytes of the messages taken into the queue.", "listener")
		attempts = counter("attempts_total", "Recipients of delivery attempts.", "route", "class")
		reports  = counter("reports_total", "Reports written.", "kind")
		verdicts = counter("verdicts_total", "Verdicts of filters.", "plugin", "stage", "action")
		done     = counter("messages_done_total", "Messages for which nothing is left to do.")
		plugins  = counter("plugin_events_total", "Changes of a plugin's state.", "plugin", "state")
	)
	m.byEvent = map[event.Name]func(event.Event){
		event.SessionOpened:  func(e event.Event) { sessions.WithLabelValues(e.Listener).Inc() },
		event.SessionRefused: func(e event.Event) { refused.WithLabelValues(e.Listener, replyClass(e.Reply)).Inc() },
		event.LoginOK:        func(e event.Event) { logins.WithLabelValues(e.Listener, "ok").Inc() },
		event.LoginFailed:    func(e event.Event) { logins.WithLabelValues(e.Listener, "failed").Inc() },
		event.MessageQueued: func(e event.Event) {
			queued.WithLabelValues(e.Listener).Inc()
			bytes.WithLabelValues(e.Listener).Add(float64(e.Size))
		},
		event.Attempt:       func(e event.Event) { attempts.WithLabelValues(e.Route, e.Class).Inc() },
		event.Bounced:       func(e event.Event) { reports.WithLabelValues(e.Class).Inc() },
		event.FilterVerdict: func(e event.Event) { verdicts.WithLabelValues(e.Plugin, e.Stage, e.Class).Inc() },
		event.MessageDone:   func(event.Event) { done.WithLabelValues().Inc() },
		event.PluginState:   func(e event.Event) { plugins.WithLabelValues(e.Plugin, e.Class).Inc() },
	}
	m.plugins = newPluginSeries()
	m.registry.MustRegister(newGauges(status), m.plugins)
	return m
}

// Observe counts an event; it is a listener for an event.Bus.
func (m *Metrics) Observe(e event.Event) {
	if count, ok := m.byEvent[e.Name]; ok {
		count(e)
	}
}

func replyClass(reply string) string {
	if reply == "" {
		return "none"
	}
	return reply[:1] + "xx"
}

// gauges are the metrics that are read from the status when they are scraped.
type gauges struct {
	status                                                                               func() Status
	messages, free, full, refusing, lag, suspended, started, plugin, calls, errors, lost *prometheus.Desc
}

func newGauges(status func() Status) *gauges {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("mta_"+name, help, labels, nil)
	}
	return &gauges{
		status:    status,
		messages:  desc("queue_messages", "Messages in the queue, by state.", "state"),
		free:      desc("queue_disk_free_bytes", "Free bytes on the disk of the queue."),
		full:      desc("queue_full", "1 while no mail is taken because the disk is nearly full."),
		refusing:  desc("intake_stopped", "1 while no mail is taken, for whatever reason; the status says why."),
		lag:       desc("queue_lag", "New mail before its first attempt, in budgets of memory; above 32 no mail is taken."),
		suspended: desc("suspensions", "Destinations and senders that the operator has suspended."),
		started:   desc("start_time_seconds", "When the server was started, in seconds since 1970."),
		plugin:    desc("plugin_up", "1 while the plugin's process is healthy.", "plugin"),
		calls:     desc("plugin_calls_total", "Calls to the plugin.", "plugin"),
		errors:    desc("plugin_errors_total", "Calls to the plugin that failed.", "plugin"),
		lost:      desc("plugin_events_lost_total", "Events that the observer could not be told.", "plugin"),
	}
}

// Describe implements prometheus.Collector.
func (g *gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{g.messages, g.free, g.full, g.refusing, g.lag, g.suspended, g.started, g.plugin, g.calls, g.errors, g.lost} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	s := g.status()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(g.messages, float64(s.Queue.Waiting), "waiting")
	gauge(g.messages, float64(s.Queue.Active), "active")
	gauge(g.messages, float64(s.Queue.Held), "held")
	gauge(g.free, float64(s.Queue.FreeDisk))
	gauge(g.full, oneIf(s.Queue.Full))
	gauge(g.refusing, oneIf(s.Queue.Refusing != ""))
	gauge(g.lag, s.Queue.Lag)
	gauge(g.suspended, float64(len(s.Suspended)))
	gauge(g.started, float64(s.Started.Unix()))
	for _, p := range s.Plugins {
		gauge(g.plugin, oneIf(p.State == "healthy"), p.Name)
		ch <- prometheus.MustNewConstMetric(g.calls, prometheus.CounterValue, float64(p.Calls), p.Name)
		ch <- prometheus.MustNewConstMetric(g.errors, prometheus.CounterValue, float64(p.Errors), p.Name)
		ch <- prometheus.MustNewConstMetric(g.lost, prometheus.CounterValue, float64(p.EventsLost), p.Name)
	}
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
