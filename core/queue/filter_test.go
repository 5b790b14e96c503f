package queue

import (
	"testing"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

func TestFilterMatch(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	rec := &Record{
		ID: 7, Envelope: mail.Envelope{From: mail.MustParseAddress("Ann@example.com")}, Received: now.Add(-time.Hour),
		Recipients: []Recipient{
			{Recipient: mail.Recipient{Address: mail.MustParseAddress("bob@one.example")}, State: Delivered, Reply: mail.NewReply(250, "2.0.0", "ok")},
			{Recipient: mail.Recipient{Address: mail.MustParseAddress("cid@two.example")}, Reply: mail.NewReply(451, "4.7.1", "Greylisted for 5 minutes")},
			{Recipient: mail.Recipient{Address: mail.MustParseAddress("dan@mx.three.example")}},
		},
	}
	held := *rec
	held.Held, held.Envelope.From = "why", mail.Address{}
	tests := []struct {
		name   string
		f      Filter
		rec    *Record
		wanted bool
	}{
		{"everything", Filter{}, rec, true},
		{"sender", Filter{From: "ann@EXAMPLE.com"}, rec, true},
		{"another sender", Filter{From: "bob@example.com"}, rec, false},
		{"a sender that only begins like it", Filter{From: "Ann@example.co"}, rec, false},
		{"pattern", Filter{From: "*@example.com"}, rec, true},
		{"all senders of a domain", Filter{From: "@EXAMPLE.com"}, rec, true},
		{"all senders of the end of a domain", Filter{From: "@ample.com"}, rec, false},
		{"all senders of a domain are not the null one", Filter{From: "@example.com"}, &held, false},
		{"all recipients of a domain", Filter{To: "@two.example"}, rec, true},
		{"null sender", Filter{From: "<>"}, &held, true},
		{"null sender is no address", Filter{From: "<>"}, rec, false},
		{"any sender but the null one", Filter{From: "*@*"}, &held, false},
		{"recipient", Filter{To: "cid@two.example"}, rec, true},
		{"a recipient that is done", Filter{To: "bob@one.example"}, rec, false},
		{"domain", Filter{Domain: "two.example"}, rec, true},
		{"subdomains", Filter{Domain: "*.three.example"}, rec, true},
		{"a domain that is done", Filter{Domain: "one.example"}, rec, false},
		{"of one recipient both", Filter{To: "cid@*", Domain: "mx.three.example"}, rec, false},
		{"the code of a reply", Filter{Reply: "451"}, rec, true},
		{"a part of a reply", Filter{Reply: "greylist"}, rec, true},
		{"a pattern of a reply", Filter{Reply: "4.7.*minutes"}, rec, true},
		{"another reply", Filter{Reply: "452"}, rec, false},
		{"the reply of a recipient that is done", Filter{Reply: "250"}, rec, false},
		{"the reply of another recipient", Filter{Reply: "451", Domain: "mx.three.example"}, rec, false},
		{"waiting", Filter{State: "waiting"}, rec, true},
		{"waiting, but held", Filter{State: "waiting"}, &held, false},
		{"held", Filter{State: "held"}, &held, true},
		{"held, but waiting", Filter{State: "held"}, rec, false},
		{"a state that does not exist", Filter{State: "sent"}, rec, false},
		{"older", Filter{OlderThan: time.Hour}, rec, true},
		{"younger", Filter{OlderThan: time.Hour + 1}, rec, false},
		{"by ID", Filter{IDs: []ID{3, 7}}, rec, true},
		{"by another ID", Filter{IDs: []ID{3}}, rec, false},
		{"all at once", Filter{From: "ann@*", To: "cid@*", Domain: "two.*", State: "waiting", OlderThan: time.Minute, IDs: []ID{7}}, rec, true},
	}
	for _, tt := range tests {
		if got := tt.f.Match(tt.rec, now); got != tt.wanted {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.wanted)
		}
	}
}

func TestLike(t *testing.T) {
	for _, tt := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"*", "", true}, {"*", "x", true}, {"a*c", "abc", true}, {"a*c", "ac", true}, {"a*a", "a", false},
		{"a*b*c", "a-b-b-c", true}, {"a*b*c", "acb", false}, {"**x", "yx", true}, {"x*", "yx", false}, {"[a]", "a", false},
		{"ab*ab", "ab", false}, {"*a*", "bab", true},
	} {
		if got := like(tt.pattern, tt.s); got != tt.want {
			t.Errorf("like(%q, %q) = %v", tt.pattern, tt.s, got)
		}
	}
}
