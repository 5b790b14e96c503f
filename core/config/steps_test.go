package config

import (
	"fmt"
	"testing"
)

// TestStepsResolved proves what a step takes from its block, from its plugin, and from nobody.
func TestStepsResolved(t *testing.T) {
	const file = `
plugin "a" {
  source   = "builtin:filter"
  timeout  = "2s"
  on_error = "reject"
}
plugin "b" {
  source = "builtin:filter"
}
pipeline "in" {
  on "rcpt" {
    use        = [plugin.a]
    on_timeout = "accept"
    allow      = []
  }
  on "message" {
    use         = [plugin.a, plugin.b]
    parallel    = true
    on_overload = "quarantine"
    allow       = ["add_header"]
  }
  on "message" {
    use      = [plugin.b]
    on_error = "accept"
  }
}
route "r" {
  mx = true
}
listener "mx" {
  address  = ["127.0.0.1:2525"]
  pipeline = pipeline.in
}
`
	s := newSource("mta.hcl", []byte(file))
	c, diags := load(t.Context(), []*source{s}, testOptions())
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	want := []string{
		"rcpt a 2s reject accept reject 0 [] false",
		"message a 2s reject reject quarantine 2 [add_header] false",
		"message b 1m0s tempfail tempfail quarantine 2 [add_header] false",
		"message b 1m0s accept accept accept 0 [] true",
	}
	steps := c.Steps("in")
	for i, s := range steps {
		got := fmt.Sprint(s.Stage, " ", s.Plugin, " ", s.Timeout, " ", s.OnError, " ", s.OnTimeout, " ", s.OnOverload, " ", s.Group, " ", s.Allow, " ", s.Allow == nil)
		if i >= len(want) || got != want[i] {
			t.Errorf("step %d: %s", i+1, got)
		}
	}
	if len(steps) != len(want) {
		t.Errorf("%d steps", len(steps))
	}
}
