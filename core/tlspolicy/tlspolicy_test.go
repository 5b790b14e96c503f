package tlspolicy

import (
	"crypto/tls"
	"testing"
)

func TestParseMode(t *testing.T) {
	for s, want := range map[string]Mode{"": Opportunistic, "none": None, "opportunistic": Opportunistic, "require": Require, "verify": Verify} {
		if m, err := ParseMode(s); m != want || err != nil {
			t.Errorf("%q: %q, %v", s, m, err)
		}
	}
	for _, s := range []string{"Verify", "may", "encrypt", "verify "} {
		if m, err := ParseMode(s); err == nil {
			t.Errorf("%q is taken as %q", s, m)
		}
	}
}

func TestFor(t *testing.T) {
	for _, tt := range []struct {
		mode                       Mode
		requireTLS                 bool
		wanted, required, verified bool
		source                     Source
	}{
		{"", false, true, false, false, FromConfig},
		{None, false, false, false, false, FromConfig},
		{Opportunistic, false, true, false, false, FromConfig},
		{Require, false, true, true, false, FromConfig},
		{Verify, false, true, true, true, FromConfig},
		{None, true, true, true, true, FromEnvelope},
		{Require, true, true, true, true, FromEnvelope},
		{Verify, true, true, true, true, FromConfig},
	} {
		p := For(tt.mode, "mx.example", nil, tt.requireTLS)
		if p.Wanted() != tt.wanted || p.Required() != tt.required || p.Verified() != tt.verified || p.Source != tt.source {
			t.Errorf("%+v: %+v", tt, p)
		}
		if c := p.Config(nil); c.InsecureSkipVerify == tt.verified || c.MinVersion != tls.VersionTLS12 || c.ServerName != "mx.example" {
			t.Errorf("%+v: %+v", tt, c)
		}
	}
	if p := For(Verify, "[2001:db8::1]", nil, false); p.Name != "2001:db8::1" {
		t.Error(p.Name)
	}
}
