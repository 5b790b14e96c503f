package mail

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestReadHeader(t *testing.T) {
	for _, tc := range []struct{ name, in, header, body string }{
		{"plain", "A: 1\r\nB: 2\r\n\r\nbody\r\n", "A: 1\r\nB: 2\r\n", "body\r\n"},
		{"fold", "A: 1\r\n\t2\r\n 3\r\n\r\nbody", "A: 1\r\n\t2\r\n 3\r\n", "body"},
		{"blank fold", "A: 1\r\n  \r\nB: 2\r\n\r\nbody", "A: 1\r\n  \r\nB: 2\r\n", "body"},
		{"no value", "A:\r\n\r\n", "A:\r\n", ""},
		{"space before the colon", "A : 1\r\n\r\n", "A : 1\r\n", ""},
		{"only header", "A: 1\r\n", "A: 1\r\n", ""},
		{"header cut off", "A: 1", "A: 1", ""},
		{"empty", "", "", ""},
		{"only the empty line", "\r\n", "", ""},
		{"no header", "\r\nbody", "", "body"},
		{"body without an empty line", "A: 1\r\nhello\r\nB: 2\r\n\r\n", "A: 1\r\n", "hello\r\nB: 2\r\n\r\n"},
		{"only body", "hello", "", "hello"},
		{"body cut off", "A: 1\r\nhello", "A: 1\r\n", "hello"},
		{"fold first", " A: 1\r\n\r\nx", "", " A: 1\r\n\r\nx"},
		{"colon first", ": 1\r\n\r\n", "", ": 1\r\n\r\n"},
		{"space and colon first", " : 1\r\n\r\n", "", " : 1\r\n\r\n"},
		{"mbox line", "From ann Mon\r\nA: 1\r\n\r\n", "", "From ann Mon\r\nA: 1\r\n\r\n"},
		{"8-bit name", "Ä: 1\r\n\r\n", "", "Ä: 1\r\n\r\n"},
		{"bare LF", "A: 1\nB: 2\n\nbody", "A: 1\nB: 2\n", "body"},
		{"8-bit value", "A: \xff\xfe\r\n\r\n", "A: \xff\xfe\r\n", ""},
	} {
		c := Bytes([]byte(tc.in))
		raw, body, err := RawHeader(c)
		if err != nil || string(raw) != tc.header {
			t.Errorf("%s: header %q, %v", tc.name, raw, err)
		}
		if got := tc.in[body:]; got != tc.body {
			t.Errorf("%s: body %q", tc.name, got)
		}
		h, at, err := ReadHeader(c)
		if err != nil || at != body || len(h) != len(slices.Collect(SplitHeader(raw))) {
			t.Errorf("%s: %v at %d, %v", tc.name, h, at, err)
		}
	}
}

func TestHeaderFields(t *testing.T) {
	h := ParseHeader([]byte("Subject: one\r\n two\r\nto:\tann\r\nTO: bob \r\nnonsense\r\nX:last"))
	if len(h) != 4 || h[0].ID != 1 || h[3].ID != 4 || h[3].Name != "X" {
		t.Fatalf("%v", h)
	}
	if h.Get("SUBJECT") != "one two" || h.Get("To") != "ann" || h.Get("cc") != "" {
		t.Errorf("Get: %q %q", h.Get("SUBJECT"), h.Get("To"))
	}
	if h.Count("To") != 2 || !h.Has("x") || h.Has("cc") {
		t.Error("Count or Has")
	}
	if got := string(h.AppendTo(nil)); got != "Subject: one\r\n two\r\nto:\tann\r\nTO: bob \r\nX:last\r\n" {
		t.Errorf("%q", got)
	}
}

func TestHeaderLimit(t *testing.T) {
	line := []byte("X-Field: " + strings.Repeat("v", 100) + "\r\n")
	just := bytes.Repeat(line, MaxHeader/len(line))
	if _, body, err := ReadHeader(Bytes(append(slices.Clone(just), "\r\nbody"...))); err != nil || body != int64(len(just)+2) {
		t.Errorf("just below the limit: %d, %v", body, err)
	}
	for name, in := range map[string][]byte{
		"many fields": append(bytes.Repeat(line, MaxHeader/len(line)+1), "\r\nbody"...),
		"one line":    bytes.Repeat([]byte("a"), 3*MaxHeader),
		"one field":   append([]byte("a:"), bytes.Repeat([]byte(" \r\n"), MaxHeader)...),
	} {
		if _, _, err := RawHeader(Bytes(in)); !errors.Is(err, ErrHeaderTooLong) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReadHeaderIsLinear(t *testing.T) {
	for name, unit := range map[string]string{"fields": "a:\r\n", "folds": " x\r\n", "colons": "a:::::::", "bare LF": "a:\n", "trailing space": "a" + strings.Repeat(" ", 64)} {
		in := []byte("a:\r\n" + strings.Repeat(unit, (MaxHeader-16)/len(unit)) + "\r\n\r\n")
		start := time.Now()
		if _, _, err := ReadHeader(Bytes(in)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(start); took > time.Minute { // some 20 ms on an idle machine; a quadratic search takes many minutes
			t.Errorf("%s: a header of 1 MiB took %v", name, took)
		}
	}
}

type failing struct{ size int64 }

func (f failing) Size() int64                       { return f.size }
func (f failing) ReadAt([]byte, int64) (int, error) { return 0, errors.New("disk on fire") }

type short struct{ Content }

func (short) Size() int64 { return 100 }

func TestReadHeaderTellsTrouble(t *testing.T) {
	if _, _, err := ReadHeader(failing{10}); err == nil || errors.Is(err, ErrHeaderTooLong) {
		t.Errorf("%v", err)
	}
	if _, _, err := ReadHeader(short{Bytes([]byte("a: b"))}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a content that ends early: %v", err)
	}
}

// TestHeaderRoundTrip writes what it has read, for headers as RFC 5322 has them.
func TestHeaderRoundTrip(t *testing.T) {
	field := rapid.StringMatching(`[!-9;-~]{1,20}:[ -~\x80-\xff]{0,60}(\r\n[ \t]{1,3}[ -~]{1,60}){0,3}\r\n`)
	rapid.Check(t, func(t *rapid.T) {
		header := strings.Join(rapid.SliceOf(field).Draw(t, "fields"), "")
		body := rapid.StringMatching(`[ -~\r\n]{0,100}`).Draw(t, "body")
		h, at, err := ReadHeader(Bytes([]byte(header + "\r\n" + body)))
		if err != nil || at != int64(len(header)+2) {
			t.Fatalf("body at %d, %v", at, err)
		}
		if got := string(h.AppendTo(nil)); got != header {
			t.Fatalf("%q\n%q", got, header)
		}
	})
}

func FuzzReadHeader(f *testing.F) {
	for _, s := range []string{"A: 1\r\nB: 2\r\n\r\nbody", "A: 1\r\n\t2\r\n\r\n", " \r\n:", "a:\n\n", "a:\r\r\n", "From x\r\n", "a \t: \xff\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		raw, body, err := RawHeader(Bytes(in))
		if errors.Is(err, ErrHeaderTooLong) && len(in) > MaxHeader {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(in, raw) || body < int64(len(raw)) || body > int64(len(in)) || len(bytes.Trim(in[len(raw):body], "\r\n")) > 0 {
			t.Fatalf("header %q, body at %d", raw, body)
		}
		chunks := slices.Collect(SplitHeader(raw))
		h := ParseHeader(raw)
		if len(h) != len(chunks) || !bytes.Equal(slices.Concat(chunks...), raw) {
			t.Fatalf("%d fields, %d chunks: %q", len(h), len(chunks), chunks)
		}
		for i, f := range h {
			if f.ID != uint32(i+1) || CheckFieldName(f.Name) != nil && len(f.Name) <= 200 {
				t.Errorf("field %d: %+v", i, f)
			}
		}
		if written := h.AppendTo(nil); len(ParseHeader(written)) != len(h) {
			t.Errorf("%q is written as %q", raw, written)
		}
	})
}
