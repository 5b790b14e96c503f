package admin

import (
	"fmt"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// maxPluginSeries is how many metrics one plugin may have.
const maxPluginSeries = 100

// pluginSeries is the metrics that plugins report of themselves: mta_plugin_LABEL_NAME, without labels. They stay until
// the server ends.
type pluginSeries struct {
	mu     sync.Mutex
	series map[string]*series // by their full name
	counts map[string]int     // by plugin
}

type series struct {
	plugin string
	gauge  bool
	value  float64
	desc   *prometheus.Desc
}

// The server's own names. A plugin "calls" with a metric "total" would else make one scrape of all metrics fail.
var ownNames = []string{"mta_plugin_up", "mta_plugin_calls_total", "mta_plugin_errors_total", "mta_plugin_events_total", "mta_plugin_events_lost_total"}

func newPluginSeries() *pluginSeries {
	p := &pluginSeries{series: map[string]*series{}, counts: map[string]int{}}
	for _, name := range ownNames {
		p.series[name] = &series{}
	}
	return p
}

// Plugin adds to a counter of a plugin, or sets a gauge of it. The name is one that a metric may have.
func (m *Metrics) Plugin(label, name string, gauge bool, value float64) error {
	p := m.plugins
	full := "mta_plugin_" + strings.ReplaceAll(label, "-", "_") + "_" + name
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.series[full]
	switch {
	case s == nil && p.counts[label] >= maxPluginSeries:
		return fmt.Errorf("a plugin has at most %d metrics", maxPluginSeries)
	case s == nil:
		s = &series{plugin: label, gauge: gauge, desc: prometheus.NewDesc(full, "Reported by the plugin "+label+".", nil, nil)}
		p.series[full] = s
		p.counts[label]++
	case s.plugin != label:
		return fmt.Errorf("the metric %s is not this plugin's", full)
	case s.gauge != gauge:
		return fmt.Errorf("the metric %s is a counter and a gauge", full)
	}
	if gauge {
		s.value = value
	} else {
		s.value += value
	}
	return nil
}

// Describe implements prometheus.Collector: what there will be is not known before.
func (p *pluginSeries) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (p *pluginSeries) Collect(ch chan<- prometheus.Metric) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.series {
		if s.desc == nil {
			continue
		}
		kind := prometheus.CounterValue
		if s.gauge {
			kind = prometheus.GaugeValue
		}
		ch <- prometheus.MustNewConstMetric(s.desc, kind, s.value)
	}
}
