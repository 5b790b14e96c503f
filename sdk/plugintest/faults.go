package plugintest

import (
	"context"
	"slices"
	"testing"

	"github.com/pabal-mta/mta/sdk/pluginv1/conform"
)

// Kill ends the plugin as SIGKILL and a crash do: calls under way end with an error, and nothing is closed or said to its
// host. In memory that takes its connections away; its goroutines go on, and can do no harm but to each other.
func (p *Plugin) Kill() {
	p.life.kill()
	<-p.Done()
}

// Restart starts the plugin again, killed if it still lives, as the server does: with its configuration, its state directory
// and its host, which have kept what they held.
func (p *Plugin) Restart() *Plugin {
	p.t.Helper()
	p.Kill()
	return p.begin()
}

// Stall stops everything that goes between the server and the plugin, as when the server hangs, until resume is called.
// Host.Stall does that with what the plugin asks of its host.
func (p *Plugin) Stall() (resume func()) { return p.life.wire.stop() }

// Garbage sends frames that are no messages, on streams of their own, as a broken server would. Calls go on.
func (p *Plugin) Garbage() {
	p.t.Helper()
	if err := conform.Garbage(p.t.Context(), p.life.plugin.Conn); err != nil {
		p.t.Errorf("sending garbage: %v", err)
	}
}

// Oversize sends a frame of 64 MiB, and more content than its call has announced, on streams of their own. Calls go on.
func (p *Plugin) Oversize() {
	p.t.Helper()
	if err := conform.Oversize(p.t.Context(), p.life.plugin.Conn); err != nil {
		p.t.Errorf("sending too much: %v", err)
	}
}

// Conform asks the plugin what `mta plugin check` asks about each of its kinds, and about garbage, too large frames and what
// a later server may send. What it finds wrong fails the test, with a word about how to mend it. A plugin that does not live
// through a question is started again for the next. The plugin really works: its accounts are asked for, its store stores.
func Conform(t testing.TB, p *Plugin) {
	t.Helper()
	e := &examinee{p}
	var list []conform.Check
	for _, k := range e.Kinds() {
		list = append(list, conform.Kind(k)...)
	}
	for _, c := range append(list, conform.Wire()...) {
		ctx, cancel := context.WithTimeout(t.Context(), conform.Timeout)
		note, err := c.Ask(ctx, e)
		cancel()
		if err != nil {
			t.Errorf("%s: %s\n%v\n%s", c.Name, c.Proves, err, c.Hint)
			e.p = e.p.Restart()
			continue
		}
		t.Logf("ok %s: %s %s", c.Name, c.Proves, note)
	}
}

// examinee is a plugin that is asked.
type examinee struct{ p *Plugin }

// Plugin is part of conform.Examinee.
func (e *examinee) Plugin(context.Context) (*conform.Plugin, error) { return e.p.life.plugin, nil }

// Kinds is part of conform.Examinee.
func (e *examinee) Kinds() []string {
	return slices.DeleteFunc(slices.Clone(e.p.Kinds), func(k string) bool { return !conform.IsKind(k) })
}
