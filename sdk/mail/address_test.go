package mail

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestParseAddressTakes(t *testing.T) {
	long := strings.Repeat("a", maxLocalPart)
	label := strings.Repeat("b", 63)
	for in, want := range map[string]Address{
		"ann@example.com":                      {"ann", "example.com"},
		"Ann.B@Example.COM":                    {"Ann.B", "example.com"},
		"a@b":                                  {"a", "b"},
		"postmaster@xn--3e0b707e":              {"postmaster", "xn--3e0b707e"},
		"!#$%&'*+-/=?^_`{|}~@x.org":            {"!#$%&'*+-/=?^_`{|}~", "x.org"},
		"bounces+1=ann=b.org@list.org":         {"bounces+1=ann=b.org", "list.org"},
		"u@under_score.example":                {"u", "under_score.example"},
		"u@123.com":                            {"u", "123.com"},
		"u@1and1.de":                           {"u", "1and1.de"},
		long + "@x.org":                        {long, "x.org"},
		"u@" + label + ".org":                  {"u", label + ".org"},
		`"much more unusual"@x.org`:            {"much more unusual", "x.org"},
		`"very.unusual.@.x.com"@x.org`:         {"very.unusual.@.x.com", "x.org"},
		`"a\"b\\c"@x.org`:                      {`a"b\c`, "x.org"},
		`"\e\s\c"@x.org`:                       {"esc", "x.org"},
		`" "@x.org`:                            {" ", "x.org"},
		`".a..b."@x.org`:                       {".a..b.", "x.org"},
		`"quoted"@x.org`:                       {"quoted", "x.org"},
		`"한글 이름"@x.org`:                        {"한글 이름", "x.org"},
		"u@[192.0.2.1]":                        {"u", "[192.0.2.1]"},
		"u@[IPv6:2001:DB8:0:0::1]":             {"u", "[IPv6:2001:db8::1]"},
		"u@[ipv6:::1]":                         {"u", "[IPv6:::1]"},
		"u@[IPv6:::ffff:192.0.2.1]":            {"u", "[192.0.2.1]"},
		"é@é.com":                              {"é", "xn--9ca.com"},
		"u@BÜCHER.example":                     {"u", "xn--bcher-kva.example"},
		"u@XN--BCHER-KVA.example":              {"u", "xn--bcher-kva.example"},
		"u@ｅｘａｍｐｌｅ。ｃｏｍ":                        {"u", "example.com"},
		"e\u0301@x.org":                        {"e\u0301", "x.org"}, // not composed: kept as given
		"ann＠good.example@x.org":               {"ann＠good.example", "x.org"},
		"user%other.example@x.org":             {"user%other.example", "x.org"},
		"other.example!user@x.org":             {"other.example!user", "x.org"},
		`"user@other.example"@x.org`:           {"user@other.example", "x.org"},
		`"@other.example:user"@x.org`:          {"@other.example:user", "x.org"},
		`"|sh"@x.org`:                          {"|sh", "x.org"},
		"${run{id}}@x.org":                     {"${run{id}}", "x.org"},
		`"x@y> NOTIFY=NEVER <z"@x.org`:         {"x@y> NOTIFY=NEVER <z", "x.org"},
		"\"a\u200bb\"@x.org":                   {"a\u200bb", "x.org"},
		"u@" + strings.Repeat("a.", 126) + "a": {"u", strings.Repeat("a.", 126) + "a"},
	} {
		got, err := ParseAddress(in)
		if err != nil || got != want {
			t.Errorf("%q: %#v, %v", in, got, err)
			continue
		}
		if again, err := ParseAddress(got.String()); err != nil || again != got {
			t.Errorf("%q prints as %q, which reads as %#v, %v", in, got, again, err)
		}
	}
}

func TestParseAddressRefuses(t *testing.T) {
	for _, in := range []string{
		"", "@", "u", "u@", "@x.org", `""@x.org`, `"`, `"u`, `"u@x.org`, `"\`, `"u"`, `"u"x.org`, `"u" @x.org`, `"""@x.org`, `"\"@x.org`,
		"u@@x.org", "u@a@x.org", "a b@x.org", " u@x.org", "u @x.org", "u@ x.org", "u@x.org ", "u@x .org",
		".u@x.org", "u.@x.org", "u..v@x.org", `a."b".c@x.org`, `"a"b@x.org`, `"a""b"@x.org`, `a\@b@x.org`, `a\ b@x.org`,
		"a,b@x.org", "a;b@x.org", "a:b@x.org", "<u@x.org>", "u@x.org>", "Ann <u@x.org>", "u@x.org (Ann)", "u@x.org(x)evil.org", "[u]@x.org",
		"@a.org:u@x.org", "@a.org,@b.org:u@x.org", ";id;@x.org\n",
		"u@.", "u@.org", "u@x.", "u@x.org.", "u@x..org", "u@-x.org", "u@x-.org", "u@x!.org", "u@x,org", "u@x/org", "u@x;org", "u@x\\.org", "u@<x.org>",
		"u@127.0.0.1", "u@2130706433", "u@0x7f000001", "u@0x7f.1", "u@x.0x", "u@x.007", "u@１２７.0.0.1", "u@x.１",
		"u@[127.0.0.1", "u@127.0.0.1]", "u@[]", "u@[127.0.0]", "u@[127.0.0.01]", "u@[127.0.0.1]x", "u@[::1]", "u@[IPv6:127.0.0.1]", "u@[IPv6:fe80::1%eth0]", "u@[x.org]", "u@[tag:x]", "u@[127.0.0.1]\r\n]",
		"u\x00@x.org", "\"u\x00\"@x.org", "\"u\\\x00\"@x.org", "u\r@x.org", "\"u\r\nRCPT TO:<v@x.org>\"@x.org", "\"u\\\r\\\n\"@x.org", "\"\t\"@x.org", "\"u\x1b[2J\"@x.org", "\"\x7f\"@x.org",
		"u@x.org\r\n", "u@x\x00.org", "u@x.org\n", "u\u0085@x.org", "u\u2028@x.org", "\"u\u202ev\"@x.org", "u\u2066@x.org",
		"\xff@x.org", "\"\xc0\xaf\"@x.org", "\xed\xa0\x80@x.org", "\"\\é\"@x.org", "u@\xff.org", "u@\xed\xa0\x80.org",
		"u＠x.org", "u@x＠y.org", "u@x\u00a0.org", "u@x\u200e.org", "u@［127.0.0.1］", "u@a\u2028b.org", "u@xn--é.org", "u@a/b.é",
		strings.Repeat("a", maxLocalPart+1) + "@x.org", `"` + strings.Repeat("é", maxLocalPart/2+1) + `"@x.org`,
		"u@" + strings.Repeat("b", 64) + ".org", "u@" + strings.Repeat("é", 64) + ".org", "u@" + strings.Repeat("a.", 127) + "a", "u@" + strings.Repeat("é.", 1<<17) + "a", strings.Repeat("@", 1<<18),
	} {
		if a, err := ParseAddress(in); err == nil {
			t.Errorf("%q was taken as %#v", in, a)
		} else if len(err.Error()) > 5000 || strings.IndexFunc(err.Error(), unicode.IsControl) >= 0 {
			t.Errorf("%.40q: the error is no line: %q", in, err)
		}
	}
}

func TestParseUnquotedQuotesAgain(t *testing.T) {
	for in, want := range map[string]string{
		"ann@x.org":                  "ann@x.org",
		"user@evil.com@x.org":        `"user@evil.com"@x.org`,
		"x@y> NOTIFY=NEVER <z@x.org": `"x@y> NOTIFY=NEVER <z"@x.org`,
		`a"b\c@x.org`:                `"a\"b\\c"@x.org`,
		"..a..@x.org":                `"..a.."@x.org`,
		"@other.org:u@x.org":         `"@other.org:u"@x.org`,
	} {
		a, err := ParseUnquoted(in)
		if err != nil || a.String() != want {
			t.Errorf("%q: %q, %v", in, a, err)
		}
	}
	for _, in := range []string{"", "postmaster", "@x.org", "u@", "u\x00v@x.org", "u\r\nv@x.org", "u\x1b@x.org", "\xff@x.org", strings.Repeat("a", 900) + "@x.org", "u@-x..-"} {
		if a, err := ParseUnquoted(in); err == nil {
			t.Errorf("%q was taken as %q", in, a)
		}
	}
}

func TestAddressText(t *testing.T) {
	var null, back Address
	if b, err := null.MarshalText(); err != nil || len(b) != 0 || null.String() != "" || !null.IsNull() {
		t.Errorf("null: %q, %v", b, err)
	}
	back = MustParseAddress("ann@x.org")
	if err := back.UnmarshalText(nil); err != nil || !back.IsNull() {
		t.Errorf("null read: %v, %v", back, err)
	}
	a := MustParseAddress(`"a b"@x.org`)
	text, _ := a.MarshalText()
	if err := back.UnmarshalText(text); err != nil || back != a || back.Local() != "a b" || back.Domain() != "x.org" {
		t.Errorf("%q: %#v, %v", text, back, err)
	}
	if err := back.UnmarshalText([]byte("nobody")); err == nil || back != a {
		t.Errorf("a mistake changed it: %#v, %v", back, err)
	}
	if !a.IsASCII() || MustParseAddress("é@x.org").IsASCII() || !MustParseAddress("u@é.org").IsASCII() {
		t.Error("IsASCII")
	}
	defer func() {
		if recover() == nil {
			t.Error("MustParseAddress took a mistake")
		}
	}()
	MustParseAddress("nobody")
}

// checkWire fails when an address could be taken for more than one by whoever reads it.
func checkWire(t interface{ Errorf(string, ...any) }, a Address) {
	s := a.String()
	if again, err := ParseAddress(s); err != nil || again != a {
		t.Errorf("%#v prints as %q, which reads as %#v, %v", a, s, again, err)
	}
	if strings.IndexFunc(s, unicode.IsControl) >= 0 || !utf8.ValidString(s) {
		t.Errorf("%q is not fit for a wire", s)
	}
	if i := strings.LastIndexByte(s, '@'); s[i+1:] != a.Domain() || !isASCII(a.Domain()) {
		t.Errorf("%q: what follows the last @ is not the domain %q", s, a.Domain())
	}
	if d, err := ParseDomain(a.Domain()); err != nil || d != a.Domain() {
		t.Errorf("domain %q reads as %q, %v", a.Domain(), d, err)
	}
}

func TestAddressRoundTrip(t *testing.T) {
	local := rapid.OneOf(
		rapid.StringN(1, 40, maxLocalPart),
		rapid.StringMatching(`[ -~]{1,64}`),
		rapid.StringMatching(`[a-z."\\@<> é]{1,64}`),
	)
	domain := rapid.OneOf(
		rapid.StringMatching(`[a-zA-Z0-9_-]{1,20}(\.[a-zA-Z][a-z0-9-]{1,5}){0,3}`),
		rapid.StringMatching(`[éüßа-я日本語ﬀⅷ。.A-z]{1,12}`),
		rapid.StringMatching(`\[(IPv6:)?[0-9a-f:.]{2,20}\]`),
		rapid.String(),
	)
	taken := 0
	rapid.Check(t, func(t *rapid.T) {
		l, d := local.Draw(t, "local"), domain.Draw(t, "domain")
		for _, parse := range []func() (Address, error){
			func() (Address, error) { return NewAddress(l, d) },
			func() (Address, error) { return ParseUnquoted(l + "@" + d) },
			func() (Address, error) { return ParseAddress(l + "@" + d) },
			func() (Address, error) { return ParseAddress(quoteLocal(l) + "@" + d) },
		} {
			if a, err := parse(); err == nil {
				taken++
				checkWire(t, a)
			}
		}
	})
	if taken == 0 {
		t.Error("no address was legal, so nothing was tested")
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{`"a\"b@c"@Example.COM`, "é@BÜCHER.example", "u@[IPv6:::ffff:192.0.2.1]", "u@ｅx。com", "u@0x7f.1", "\"\xff\"@x", "@a:b@c", "u@xn--a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if a, err := ParseAddress(s); err == nil {
			checkWire(t, a)
		}
		if a, err := ParseUnquoted(s); err == nil {
			checkWire(t, a)
		}
	})
}

func BenchmarkParseAddress(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		a, err := ParseAddress("first.last+tag@mail.example.com")
		if err != nil || len(a.String()) == 0 {
			b.Fatal(err)
		}
	}
}
