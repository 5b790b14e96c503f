package pipeline

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"github.com/pabal-mta/mta/sdk/mail"
)

func TestApplyContent(t *testing.T) {
	const strange = "Received: a\r\nsubject :\t hi\r\n\t there \r\nX-Raw: \xff\xfe\r\nTo:bob\r\n\r\nbody\r\n"
	for _, tc := range []struct {
		name  string
		in    string
		edits []mail.Edit
		want  string
	}{
		{"top", strange, []mail.Edit{mail.AddHeader{Name: "X-A", Value: "1"}}, "X-A: 1\r\n" + strange},
		{"two on top", strange, []mail.Edit{mail.AddHeader{Name: "X-A", Value: "1"}, mail.AddHeader{Name: "X-B", Value: "2"}}, "X-B: 2\r\nX-A: 1\r\n" + strange},
		{"bottom", strange, []mail.Edit{mail.AddHeader{Name: "X-A", Value: " 1", Bottom: true}}, strings.Replace(strange, "To:bob\r\n", "To:bob\r\nX-A: 1\r\n", 1)},
		{"folded", strange, []mail.Edit{mail.AddHeader{Name: "X-A", Value: "\r\n 1\r\n\t2"}}, "X-A:\r\n 1\r\n\t2\r\n" + strange},
		{"replace", strange, []mail.Edit{mail.ReplaceHeader{ID: 2, Value: "new"}}, strings.Replace(strange, "subject :\t hi\r\n\t there \r\n", "subject: new\r\n", 1)},
		{"replace raw by raw", strange, []mail.Edit{mail.ReplaceHeader{ID: 3, Value: "\xfd"}}, strings.Replace(strange, "\xff\xfe", "\xfd", 1)},
		{"remove", strange, []mail.Edit{mail.RemoveHeader{ID: 3}}, strings.Replace(strange, "X-Raw: \xff\xfe\r\n", "", 1)},
		{"remove and use what is left", strange, []mail.Edit{mail.RemoveHeader{ID: 2}, mail.ReplaceHeader{ID: 4, Value: "cy"}}, "Received: a\r\nX-Raw: \xff\xfe\r\nTo: cy\r\n\r\nbody\r\n"},
		{"edit what was added", strange, []mail.Edit{mail.AddHeader{Name: "X-A", Value: "1"}, mail.ReplaceHeader{ID: 5, Value: "2"}}, "X-A: 2\r\n" + strange},
		{"body", strange, []mail.Edit{mail.ReplaceBody{Body: []byte("new\r\n")}}, strings.Replace(strange, "body", "new", 1)},
		{"body without an end", strange, []mail.Edit{mail.ReplaceBody{Body: []byte("new")}}, strings.Replace(strange, "body", "new", 1)},
		{"body twice and header", strange, []mail.Edit{mail.ReplaceBody{Body: []byte("a\r\n")}, mail.AddHeader{Name: "X", Value: "1"}, mail.ReplaceBody{Body: []byte("b\r\n")}}, "X: 1\r\n" + strings.Replace(strange, "body", "b", 1)},
		{"no body any more", strange, []mail.Edit{mail.ReplaceBody{}}, strings.TrimSuffix(strange, "body\r\n")},
		{"only header", "A: 1\r\n", []mail.Edit{mail.AddHeader{Name: "B", Value: "2", Bottom: true}}, "A: 1\r\nB: 2\r\n"},
		{"header cut off", "A: 1", []mail.Edit{mail.AddHeader{Name: "B", Value: "2", Bottom: true}}, "A: 1\r\nB: 2\r\n"},
		{"body for a header only", "A: 1\r\n", []mail.Edit{mail.ReplaceBody{Body: []byte("x\r\n")}}, "A: 1\r\n\r\nx\r\n"},
		{"no header", "\r\nbody\r\n", []mail.Edit{mail.AddHeader{Name: "B", Value: "2"}}, "B: 2\r\n\r\nbody\r\n"},
		{"empty", "", []mail.Edit{mail.AddHeader{Name: "B", Value: "2"}}, "B: 2\r\n"},
		{"no empty line", "A: 1\r\nhello\r\n", []mail.Edit{mail.AddHeader{Name: "B", Value: "2"}}, "B: 2\r\nA: 1\r\n\r\nhello\r\n"},
		{"body like a fold", " hello\r\n", []mail.Edit{mail.AddHeader{Name: "B", Value: "2"}}, "B: 2\r\n\r\n hello\r\n"},
		{"all removed", "A: 1\r\nB: 2\r\n\r\nx", []mail.Edit{mail.RemoveHeader{ID: 1}, mail.RemoveHeader{ID: 2}}, "\r\nx"},
		{"empty value", "A: 1\r\n\r\n", []mail.Edit{mail.ReplaceHeader{ID: 1}}, "A: \r\n\r\n"},
	} {
		m := newMessage(tc.in)
		got, err := Apply(m, tc.edits)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if s := text(t, got.Content); s != tc.want {
			t.Errorf("%s: %q\nwant %q", tc.name, s, tc.want)
		}
		if text(t, m.Content) != tc.in || m.Header != nil {
			t.Errorf("%s: the message given has been changed", tc.name)
		}
		if again, _, err := mail.ReadHeader(got.Content); err != nil || len(again) != len(got.Header) {
			t.Errorf("%s: the header reads as %v, %v; the message says %v", tc.name, again, err, got.Header)
		}
		if err := iotest.TestReader(mail.Reader(got.Content), []byte(tc.want)); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

func TestApplyRefuses(t *testing.T) {
	const in = "Received: a\r\nDELIVERED-TO: x\r\nReturn-Path: <>\r\nA: 1\r\n\r\nbody\r\n"
	for _, edits := range [][]mail.Edit{
		{nil},
		{mail.AddHeader{Name: "X", Value: "a\r\nb"}},
		{mail.AddHeader{Name: "Received", Value: "x"}}, {mail.AddHeader{Name: "return-path", Value: "x"}}, {mail.AddHeader{Name: "Delivered-To", Value: "x"}},
		{mail.ReplaceHeader{ID: 1, Value: "x"}}, {mail.RemoveHeader{ID: 2}}, {mail.RemoveHeader{ID: 3}},
		{mail.RemoveHeader{ID: 0}}, {mail.RemoveHeader{ID: 5}}, {mail.RemoveHeader{ID: 4}, mail.RemoveHeader{ID: 4}}, {mail.ReplaceHeader{ID: 9, Value: "x"}},
		{mail.AddHeader{Name: "X", Value: "é"}}, {mail.ReplaceHeader{ID: 4, Value: "é"}}, {mail.ReplaceHeader{ID: 4, Value: strings.Repeat("v", 998)}},
		{mail.DropRecipient{Address: bob}},
		{mail.ReplaceBody{Body: []byte("a\nb")}},
		append(make([]mail.Edit, 0), many(mail.MaxHeader/900, mail.AddHeader{Name: "X", Value: strings.Repeat("v", 950)})...),
	} {
		m := newMessage(in)
		if got, err := Apply(m, edits); err == nil {
			t.Errorf("%T was made: %q", edits[0], text(t, got.Content)[:50])
		}
		if text(t, m.Content) != in || len(m.Envelope.To) != 1 {
			t.Errorf("%T: the message has been changed", edits[0])
		}
	}
	m := newMessage(in)
	m.Envelope.SMTPUTF8 = true
	if got, err := Apply(m, []mail.Edit{mail.AddHeader{Name: "X", Value: "é"}}); err != nil || !strings.HasPrefix(text(t, got.Content), "X: é\r\n") {
		t.Errorf("SMTPUTF8: %v", err)
	}
	if _, err := Apply(m, []mail.Edit{mail.AddHeader{Name: "X", Value: "\xff"}}); err == nil {
		t.Error("what is no UTF-8 was added")
	}
	m.Header = mail.ParseHeader([]byte("Other: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\n"))
	if _, err := Apply(m, []mail.Edit{mail.RemoveHeader{ID: 4}}); err == nil {
		t.Error("the header of another message was believed")
	}
}

func many(n int, e mail.Edit) []mail.Edit {
	edits := make([]mail.Edit, n)
	for i := range edits {
		edits[i] = e
	}
	return edits
}

func TestApplyEnvelope(t *testing.T) {
	rcpt := func(a mail.Address, original string) mail.Recipient {
		return mail.Recipient{Address: a, Original: original}
	}
	start := []mail.Recipient{rcpt(ann, "rfc822;a"), rcpt(bob, "rfc822;b")}
	for _, tc := range []struct {
		name  string
		edits []mail.Edit
		from  mail.Address
		to    string
	}{
		{"sender", []mail.Edit{mail.SetSender{}}, mail.Address{}, "ann=a bob=b"},
		{"add", []mail.Edit{mail.AddRecipient{Recipient: rcpt(cy, "")}}, ann, "ann=a bob=b cy="},
		{"add again", []mail.Edit{mail.AddRecipient{Recipient: rcpt(bob, "rfc822;x")}}, ann, "ann=a bob=b"},
		{"drop", []mail.Edit{mail.DropRecipient{Address: ann}}, ann, "bob=b"},
		{"drop a stranger", []mail.Edit{mail.DropRecipient{Address: cy}}, ann, "ann=a bob=b"},
		{"rewrite", []mail.Edit{mail.RewriteRecipient{Old: ann, New: cy}}, ann, "cy=a bob=b"},
		{"rewrite to one that is there", []mail.Edit{mail.RewriteRecipient{Old: bob, New: ann}}, ann, "ann=a"},
		{"drop and add", []mail.Edit{mail.DropRecipient{Address: ann}, mail.DropRecipient{Address: bob}, mail.AddRecipient{Recipient: rcpt(ann, "rfc822;c")}}, ann, "ann=c"},
	} {
		m := newMessage(plain)
		m.Envelope.To = start
		got, err := Apply(m, tc.edits)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		var to []string
		for _, r := range got.Envelope.To {
			to = append(to, r.Address.Local()+"="+strings.TrimPrefix(r.Original, "rfc822;"))
		}
		if got.Envelope.From != tc.from || strings.Join(to, " ") != tc.to || got.Content != m.Content {
			t.Errorf("%s: from %q to %v", tc.name, got.Envelope.From, to)
		}
		if start[0].Address != ann || start[1].Address != bob || m.Envelope.From != ann {
			t.Fatalf("%s: the message given has been changed", tc.name)
		}
	}
}

func TestApplyNothing(t *testing.T) {
	m := newMessage(plain)
	for _, edits := range [][]mail.Edit{nil, {}, {mail.SetMeta{Key: "a", Value: "b"}}} {
		if got, err := Apply(m, edits); err != nil || got != m {
			t.Errorf("%v: %p, %v", edits, got, err)
		}
	}
}

func TestApplyEightBitBody(t *testing.T) {
	for _, tc := range []struct {
		body string
		old  mail.BodyType
		want mail.BodyType
	}{{"a", mail.Body7Bit, mail.Body7Bit}, {"é", mail.Body7Bit, mail.Body8Bit}, {"é", mail.BodyBinary, mail.BodyBinary}, {"a", mail.Body8Bit, mail.Body8Bit}} {
		m := newMessage(plain)
		m.Envelope.Body = tc.old
		if got, err := Apply(m, []mail.Edit{mail.ReplaceBody{Body: []byte(tc.body)}}); err != nil || got.Envelope.Body != tc.want {
			t.Errorf("%+v: %v, %v", tc, got.Envelope.Body, err)
		}
	}
}

// counting tells how many bytes of it are read.
type counting struct {
	mail.Content
	read int64
}

func (c *counting) ReadAt(p []byte, at int64) (int, error) {
	n, err := c.Content.ReadAt(p, at)
	c.read += int64(n)
	return n, err
}

func TestApplyDoesNotReadTheBody(t *testing.T) {
	body := strings.Repeat("x\r\n", 1<<20)
	c := &counting{Content: mail.Bytes([]byte("A: 1\r\n\r\n" + body))}
	m := newMessage("")
	m.Content = c
	for i := range 10 {
		var err error
		if m, err = Apply(m, []mail.Edit{mail.AddHeader{Name: "X", Value: fmt.Sprint(i)}, mail.RemoveHeader{ID: uint32(i + 1)}}); err != nil {
			t.Fatal(err)
		}
	}
	if c.read > 100_000 {
		t.Errorf("%d bytes were read", c.read)
	}
	if s := m.Content.(*mail.Spliced); s.Rest != mail.Content(c) || s.From != 8 {
		t.Errorf("splices are stacked: rest %T from %d", s.Rest, s.From)
	}
	if m.Header[0].ID != 11 || text(t, m.Content) != "X: 9\r\n\r\n"+body {
		t.Errorf("header %v", m.Header)
	}
}

func TestApplyManyEditsInTime(t *testing.T) {
	start := time.Now()
	edits := many(maxEdits/2, mail.AddHeader{Name: "X", Value: "v"})
	for i := range maxEdits / 2 {
		edits = append(edits, mail.AddRecipient{Recipient: mail.Recipient{Address: mail.MustParseAddress(fmt.Sprintf("u%d@example.com", i))}})
	}
	m, err := Apply(newMessage(plain), edits)
	if err != nil || len(m.Envelope.To) != maxEdits/2+1 || len(m.Header) != maxEdits/2+2 {
		t.Fatal(err)
	}
	if took := time.Since(start); took > time.Minute { // some ms on an idle machine; what is quadratic takes many minutes
		t.Errorf("%v", took)
	}
}

// TestReplay makes the edits of a stage at once and step by step, and wants the same: smtpd does the one and filters have
// seen the other.
func TestReplay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMessage(rapid.StringMatching(`(([A-Z]{1,3}|Received)[ ]?:[ -~]{0,9}(\r\n [a-z]{1,3})?\r\n){0,5}(\r\n[ -~\r\n]{0,20})?`).Draw(t, "text"))
		id := rapid.Uint32Range(0, 8)
		edit := rapid.OneOf(
			rapid.Custom(func(t *rapid.T) mail.Edit { return mail.RemoveHeader{ID: id.Draw(t, "id")} }),
			rapid.Custom(func(t *rapid.T) mail.Edit { return mail.ReplaceHeader{ID: id.Draw(t, "id"), Value: "r"} }),
			rapid.Custom(func(t *rapid.T) mail.Edit {
				return mail.AddHeader{Name: "N", Value: rapid.StringMatching(`[a-z]{0,3}`).Draw(t, "value"), Bottom: rapid.Bool().Draw(t, "bottom")}
			}),
			rapid.Custom(func(t *rapid.T) mail.Edit {
				return mail.ReplaceBody{Body: []byte(rapid.StringMatching(`([a-zé]{0,3}\r\n){0,2}`).Draw(t, "body"))}
			}),
			rapid.Just[mail.Edit](mail.SetMeta{Key: "k", Value: "v"}),
		)
		p := &Pipeline{Stages: map[Stage][]Step{}}
		for _, edits := range rapid.SliceOfN(rapid.SliceOfN(edit, 0, 3), 0, 5).Draw(t, "steps") {
			p.Stages[StageMessage] = append(p.Stages[StageMessage], Step{Filter: says(mail.Continue(edits...)), OnError: OnErrorAccept})
		}
		r := p.Message(t.Context(), newSession(), m)
		at, err := Apply(m, r.Edits)
		if err != nil {
			t.Fatalf("edits that were taken one by one are refused together: %v", err)
		}
		one, two := read(r.Message), read(at)
		if one != two || r.Message.Envelope.Body != at.Envelope.Body {
			t.Fatalf("%q\n%q", one, two)
		}
		if len(r.Edits) == 0 && one != read(m) {
			t.Fatalf("%q without edits became %q", read(m), one)
		}
	})
}

func read(m *mail.Message) string {
	b, _ := io.ReadAll(mail.Reader(m.Content))
	return string(b)
}

func FuzzApply(f *testing.F) {
	f.Add([]byte(plain), "X-A", "1\r\n 2", uint32(1), []byte("new\r\n"), true)
	f.Add([]byte(" fold\r\n"), "A", "", uint32(0), []byte(nil), false)
	f.Add([]byte("A: 1\nB : 2\n\n\nx"), "A", "b", uint32(2), []byte("x"), true)
	f.Fuzz(func(t *testing.T, content []byte, name, value string, id uint32, body []byte, bottom bool) {
		m := newMessage(string(content))
		_, at, err := mail.ReadHeader(m.Content)
		if err != nil {
			return
		}
		for _, edit := range []mail.Edit{mail.AddHeader{Name: name, Value: value, Bottom: bottom}, mail.ReplaceHeader{ID: id, Value: value}, mail.RemoveHeader{ID: id}, mail.ReplaceBody{Body: body}} {
			got, err := Apply(m, []mail.Edit{edit})
			if err != nil {
				continue
			}
			again, bodyAt, err := mail.ReadHeader(got.Content)
			if err != nil || len(again) != len(got.Header) {
				t.Fatalf("%T: the header reads as %v, %v; the message says %v", edit, again, err, got.Header)
			}
			for i := range again {
				if again[i].Name != got.Header[i].Name || again[i].Text() != got.Header[i].Text() {
					t.Fatalf("%T: field %d reads as %+v, the message says %+v", edit, i, again[i], got.Header[i])
				}
			}
			if _, isBody := edit.(mail.ReplaceBody); !isBody && !bytes.Equal([]byte(read(got))[bodyAt:], content[at:]) {
				t.Fatalf("%T: the body has changed: %q", edit, read(got))
			}
		}
	})
}
