package route

import (
	"strings"
	"testing"

	"github.com/pabal-mta/mta/sdk/mail"
)

func table() Table {
	return Table{
		{Name: "none", Kind: Store, Domains: []string{}},
		{Name: "local", Kind: Store, Domains: []string{"example.com", "example.net"}, Local: true},
		{Name: "lists", Kind: LMTP, Domains: []string{"*.example.com"}},
		{Name: "odd", Kind: Smarthost, Domains: []string{"*", "*example.org", "", "XN--O39A.example", "[192.0.2.1]"}},
		{Name: "internet", Kind: MX},
		{Name: "never", Kind: MX},
	}
}

func TestFind(t *testing.T) {
	for _, tt := range []struct {
		address, want string
	}{
		{"a@example.com", "local"},
		{"a@EXAMPLE.COM", "local"},
		{"a@example.net", "local"},
		{"a@lists.example.com", "lists"},
		{"a@b.lists.example.com", "lists"},
		{"a@badexample.com", "internet"},
		{"a@example.com.evil.example", "internet"},
		{"a@com", "internet"},
		{"a@sub.example.net", "internet"},
		{"a@xexample.org", "internet"}, // a wildcard without its dot takes nothing
		{"a@xn--o39a.example", "odd"},
		{"a@[192.0.2.1]", "odd"},
		{"a@[192.0.2.2]", "internet"},
		{`"x@example.com"@other.example`, "internet"},
	} {
		r, passed := table().Find(mail.MustParseAddress(tt.address))
		if r == nil || r.Name != tt.want {
			t.Errorf("%s is taken by %+v, want %s", tt.address, r, tt.want)
			continue
		}
		for i, m := range passed {
			if m.Route.Name != table()[i].Name || m.Why == "" {
				t.Errorf("%s: passed[%d] = %+v", tt.address, i, m)
			}
		}
		if got := table().Take(mail.MustParseAddress(tt.address)); got.Name != tt.want {
			t.Errorf("%s: Take says %s, Find says %s", tt.address, got.Name, tt.want)
		}
	}
}

func TestFindNothing(t *testing.T) {
	only := Table{{Name: "local", Kind: Store, Domains: []string{"a.example", "b.example", "c.example", "d.example", "e.example", "f.example"}}}
	r, passed := only.Find(mail.MustParseAddress("u@elsewhere.example"))
	if r != nil || len(passed) != 1 {
		t.Fatalf("got %v, %v", r, passed)
	}
	if w := passed[0].Why; !strings.Contains(w, "elsewhere.example") || !strings.Contains(w, "6 domains") || strings.Contains(w, "f.example") {
		t.Errorf("why: %q", w)
	}
	if r, _ := table().Find(mail.Address{}); r != nil {
		t.Errorf("the null address is taken by %s", r.Name)
	}
	if r := table().Take(mail.Address{}); r != nil {
		t.Errorf("the null address is taken by %s", r.Name)
	}
	if r, passed := (Table)(nil).Find(mail.MustParseAddress("u@x.example")); r != nil || passed != nil {
		t.Errorf("an empty table takes: %v, %v", r, passed)
	}
}

func TestSite(t *testing.T) {
	mx, smart := &Route{Name: "internet", Kind: MX}, &Route{Name: "partner", Kind: Smarthost}
	if mx.Site("a.example") == mx.Site("b.example") {
		t.Error("an mx route has one site for each domain")
	}
	if smart.Site("a.example") != smart.Site("b.example") {
		t.Error("a smarthost is one site")
	}
}

func TestKind(t *testing.T) {
	if MX.String() != "mx" || Kind(0).String() != "unspecified" || Kind(77).String() != "kind(77)" {
		t.Error("names of kinds changed")
	}
	if !Store.Final() || !LMTP.Final() || MX.Final() || Smarthost.Final() {
		t.Error("store and lmtp are final, and no other")
	}
}
