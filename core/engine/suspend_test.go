package engine

import (
	"strings"
	"testing"

	"github.com/pabal-mta/mta/core/route"
)

func TestSuspendable(t *testing.T) {
	routes := route.Table{
		{Name: "local", Kind: route.Store, Domains: []string{"example.com"}},
		{Name: "partner", Kind: route.Smarthost, Domains: []string{"*.partner.example"}},
		{Name: "internet", Kind: route.MX},
	}
	for given, want := range map[string]string{
		"*": "*", "local": "local", "internet": "internet", "Example.NET": "example.net", "*.EXAMPLE.net": "*.example.net",
		"한국.example": "xn--3e0b707e.example", "[192.0.2.1]": "[192.0.2.1]", "partner.example": "partner.example", "example.com": "!suspend local",
		"*.partner.example": "!suspend partner", "a.partner.example": "!suspend partner",
		"": "!no destination", "Local": "!no destination", "lcoal": "!(local, partner, internet)", "*.": "!no destination", "*.com": "*.com",
		"a b.example": "!no destination", "*example.net": "!no destination", "a\r\nb.example": "!no destination", "**": "!no destination",
		"Bob@EXAMPLE.net": "Bob@example.net", "@Example.net": "@example.net", "<>": "<>", "News-*@example.NET": "news-*@example.net", "*@*": "*@*",
		"@": "!no pattern", "bob@": "!no sender", "a b@example.net": "!no sender", "*@a b": "!no pattern", "*@\r\n": "!no pattern", "<bob@example.net>": "!no sender",
	} {
		got, err := suspendable(given, routes)
		if err != nil {
			got = "!" + err.Error()
		}
		if wrong := strings.TrimPrefix(want, "!"); got != want && (wrong == want || err == nil || !strings.Contains(got, wrong)) {
			t.Errorf("%q is %q, want %q", given, got, want)
		}
	}
}
