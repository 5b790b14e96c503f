package mail

import (
	"errors"
	"strings"
	"testing"
	"unicode"
)

func TestReply(t *testing.T) {
	r := NewReply(550, "5.1.1", "no such mailbox\nsorry")
	if r.String() != "550 5.1.1 no such mailbox sorry" || r.Positive() || r.Temporary() || !r.Permanent() {
		t.Errorf("%s", r)
	}
	var back *Reply
	if err := error(&r); !errors.As(err, &back) || err.Error() != r.String() {
		t.Errorf("%v", err)
	}
	if s := NewReply(250, "", "").String(); s != "250" {
		t.Errorf("%q", s)
	}
	if !NewReply(299, "2.0.0", "").Positive() || !NewReply(421, "", "").Temporary() {
		t.Error("classes")
	}
}

func TestReplyCheckRefuses(t *testing.T) {
	for _, r := range []Reply{
		{}, {Code: 199}, {Code: 600}, {Code: -550}, {Code: 999},
		{Code: 550, Enhanced: EnhancedCode{4, 0, 0}}, {Code: 354, Enhanced: EnhancedCode{3, 0, 0}}, {Code: 550, Enhanced: EnhancedCode{5, 1000, 0}}, {Code: 550, Enhanced: EnhancedCode{5, 0, -1}}, {Code: 550, Enhanced: EnhancedCode{0, 1, 1}},
		{Code: 550, Text: "a\rb"}, {Code: 550, Text: "a\r\n250 ok"}, {Code: 550, Text: "a\x00"}, {Code: 550, Text: "\x1b[2J"}, {Code: 550, Text: "\x7f"}, {Code: 550, Text: "\u0085"}, {Code: 550, Text: "\xff"}, {Code: 550, Text: "\t"},
		{Code: 550, Text: strings.Repeat("a", maxReplyText+1)},
	} {
		if r.Check() == nil {
			t.Errorf("%#v was taken", r)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("NewReply took a mistake")
		}
	}()
	NewReply(550, "5.1", "")
}

func TestParseEnhanced(t *testing.T) {
	for in, want := range map[string]EnhancedCode{"2.0.0": {2, 0, 0}, "4.4.5": {4, 4, 5}, "5.999.999": {5, 999, 999}} {
		if got, err := ParseEnhanced(in); err != nil || got != want || got.String() != in {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "5", "5.7", "5.7.", "5..1", "5.7.1.2", "5.7.1000", "3.1.1", "0.0.0", "55.1.1", "5.7.x", "5.7.-1", "5.7.+1", " 5.7.1", "5.7.1 ", "5.7.１"} {
		if got, err := ParseEnhanced(in); err == nil {
			t.Errorf("%q was taken as %v", in, got)
		}
	}
}

func FuzzReply(f *testing.F) {
	f.Add(550, "5.7.1", "go away\nplease")
	f.Add(354, "", "go on")
	f.Add(550, "5.7.1", "x\r\n250 ok")
	f.Add(999, "9.9.9", "\xff")
	f.Fuzz(func(t *testing.T, code int, enhanced, text string) {
		e, err := ParseEnhanced(enhanced)
		if again, err2 := ParseEnhanced(e.String()); err == nil && (err2 != nil || again != e) {
			t.Errorf("%q: %v, then %v, %v", enhanced, e, again, err2)
		}
		r := Reply{Code: code, Enhanced: e, Text: text}
		if r.Check() != nil {
			return
		}
		if s := r.String(); strings.IndexFunc(s, unicode.IsControl) >= 0 {
			t.Errorf("%q is not one line", s)
		}
		classes := 0
		for _, is := range []bool{r.Positive(), r.Temporary(), r.Permanent(), code/100 == 3} {
			if is {
				classes++
			}
		}
		if classes != 1 {
			t.Errorf("%d is of %d classes", code, classes)
		}
	})
}
