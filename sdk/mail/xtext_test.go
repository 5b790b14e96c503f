package mail

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestXtext(t *testing.T) {
	for text, coded := range map[string]string{
		"": "", "QQ314159": "QQ314159", "a+b=c d": "a+2Bb+3Dc+20d", "é": "+C3+A9", `<a\b>`: `<a\b>`,
	} {
		if got := EncodeXtext(text); got != coded {
			t.Errorf("%q is written as %q", text, got)
		}
		if got, err := DecodeXtext(coded); err != nil || got != text {
			t.Errorf("%q is read as %q, %v", coded, got, err)
		}
	}
	if got, err := DecodeXtext("a+2bb"); err != nil || got != "a+b" {
		t.Errorf("small digits: %q, %v", got, err)
	}
	for _, in := range []string{"+", "a+", "+4", "+4G", "++41", "+ 1", "+-1", "a=b", "a b", "é", "a\x00", "+0D+0A", "+00", "+7F", "+FF", "+C2+85", "+E2+80+A8", strings.Repeat("a", 501)} {
		if got, err := DecodeXtext(in); err == nil {
			t.Errorf("%q was read as %q", in, got)
		}
	}
}

func TestORCPT(t *testing.T) {
	for original, param := range map[string]string{
		"rfc822;ann+x@x.org": "rfc822;ann+2Bx@x.org",
		"RFC822;ann@x.org":   "RFC822;ann@x.org",
		"x400;/C=kr/":        "x400;/C+3Dkr/",
		"utf-8;한글@x.org":     `utf-8;\x{D55C}\x{AE00}@x.org`,
		`utf-8;a+b=c\d e`:    `utf-8;a\x{2B}b\x{3D}c\x{5C}d\x{20}e`,
		"UTF-8;😀@x.org":      `UTF-8;\x{1F600}@x.org`,
	} {
		if got := EncodeORCPT(original); got != param {
			t.Errorf("%q is written as %q", original, got)
		}
		if got, err := DecodeORCPT(param); err != nil || got != original {
			t.Errorf("%q is read as %q, %v", param, got, err)
		}
	}
	for param, want := range map[string]string{ // RFC 6533, 3: characters as they are; and xtext, which is met
		"utf-8;한글@x.org":         "utf-8;한글@x.org",
		"utf-8;+C3+A9+2Bx@x.org": "utf-8;é+x@x.org",
		`utf-8;\x{d55c}@x.org`:   "utf-8;한@x.org",
		`utf-8;\x{00E9}@x.org`:   "utf-8;é@x.org",
	} {
		if got, err := DecodeORCPT(param); err != nil || got != want {
			t.Errorf("%q is read as %q, %v", param, got, err)
		}
	}
	for _, in := range []string{
		"", ";", "rfc822", "rfc822;", ";ann@x.org", "a b;c", "é;c", "rfc822;é@x.org", "rfc822;a b", "rfc822;+0D+0ARCPT",
		`utf-8;\`, `utf-8;\x`, `utf-8;\x{`, `utf-8;\x{}`, `utf-8;\x{4}`, `utf-8;\x{41`, `utf-8;\x{0000041}`, `utf-8;\x{+41}`, `utf-8;\x{D800}`, `utf-8;\x{110000}`, `utf-8;\x{0A}`, `utf-8;\x{0D}\x{0A}`, `utf-8;\x{00}`, `utf-8;\x{202E}`, `utf-8;\y{41}`,
		"utf-8;a b", "utf-8;a=b", "utf-8;+4", "utf-8;\xff", "utf-8;a\r\nb", "utf-8;" + strings.Repeat("a", 500),
	} {
		if got, err := DecodeORCPT(in); err == nil {
			t.Errorf("%q was read as %q", in, got)
		}
	}
}

func TestORCPTRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		original := rapid.SampledFrom([]string{"rfc822;", "utf-8;"}).Draw(t, "type") + rapid.StringN(1, 60, 240).Draw(t, "text")
		if (Recipient{Address: MustParseAddress("a@b"), Original: original}).Check() != nil {
			t.Skip()
		}
		param := EncodeORCPT(original)
		if !isASCII(param) || strings.ContainsAny(param, " =") {
			t.Fatalf("%q is written as %q", original, param)
		}
		if back, err := DecodeORCPT(param); err != nil || back != original {
			t.Fatalf("%q is written as %q and read as %q, %v", original, param, back, err)
		}
	})
}

func FuzzDecodeORCPT(f *testing.F) {
	for _, s := range []string{"rfc822;ann+2Bx@x.org", `utf-8;\x{D55C}+C3+A9é`, "utf-8;+", `utf-8;\x{`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		original, err := DecodeORCPT(s)
		if err != nil {
			return
		}
		if err := (Recipient{Address: MustParseAddress("a@b"), Original: original}).Check(); err != nil {
			t.Errorf("%q: %v", s, err)
		}
		if back, err := DecodeORCPT(EncodeORCPT(original)); err != nil || back != original {
			t.Errorf("%q: %q, then %q, %v", s, original, back, err)
		}
	})
}
