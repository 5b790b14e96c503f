package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/plugintest"
)

func TestMain(m *testing.M) {
	if os.Getenv(sdk.CookieKey) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

const config = `{"default": "relay.example:587", "rule": [
	{"senders": ["Shop.example", "news@example.com"], "to": "provider"},
	{"senders": ["example.com"], "to": "mx"}]}`

func TestRoute(t *testing.T) {
	for name, p := range map[string]*plugintest.Plugin{
		"memory": plugintest.New(t, sdk.Of(plugin()), config), "process": plugintest.Exec(t, os.Args[0], config),
	} {
		for from, want := range map[string]mail.Hop{
			"a@shop.example": {Route: "provider"}, "news@example.com": {Route: "provider"}, "ann@example.com": {MX: true},
			"a@sub.shop.example": {Hosts: []string{"relay.example:587"}}, "": {Hosts: []string{"relay.example:587"}},
		} {
			r := &mail.Routing{ID: "1", Attempt: 1}
			if from != "" {
				r.Envelope.From = mail.MustParseAddress(from)
			}
			for _, to := range []string{"x@a.example", "y@b.example"} {
				r.Envelope.To = append(r.Envelope.To, mail.Recipient{Address: mail.MustParseAddress(to)})
			}
			hops, err := p.Route(t.Context(), r)
			if err != nil || len(hops) != 2 || fmt.Sprint(hops[0]) != fmt.Sprint(want) || fmt.Sprint(hops[1]) != fmt.Sprint(want) {
				t.Errorf("%s: %q: %v, %v; want %v", name, from, hops, err, want)
			}
		}
	}
}

func TestWrongConfig(t *testing.T) {
	for config, want := range map[string]string{
		`{"default": ""}`: "default", `{"default": "host:99999"}`: "default", `{"rule": [{"senders": ["a b"], "to": "mx"}]}`: "rule.0.senders.0",
		`{"rule": [{"senders": ["a@"], "to": "mx"}]}`: "rule.0.senders.0", `{"rule": [{"senders": [], "to": "unix:/x"}]}`: "rule.0.to",
	} {
		problems := plugintest.Problems(t, sdk.Of(plugin()), config)
		if len(problems) == 0 || strings.Join(problems[0].Path, ".") != want {
			t.Errorf("%s: %v; want %s", config, problems, want)
		}
	}
}
