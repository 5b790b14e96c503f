package mime

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	stdmime "mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/textproto"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/pabal-mta/mta/sdk/mail"
)

// A tree of MIME parts, written by one library and read by another: neither is ours.

var (
	textLeaf = rapid.Custom(func(t *rapid.T) string {
		words := rapid.SliceOf(rapid.SampledFrom([]string{"hello", "안녕", "é", "=", "=20", " ", "  ", "\t", ".", "--", "--a", "--a1", "From ", "\r\n",
			"\r\n\r\n", strings.Repeat("x", 80), strings.Repeat("ö", 1000), "\xff", "?="})).Draw(t, "words")
		return strings.Join(words, "")
	})
	binaryLeaf = rapid.Map(rapid.SliceOf(rapid.SampledFrom([]string{"\x00", "\r", "\n", "\xff\xd8", "a", "\r\n", "=", "--a1"})),
		func(s []string) string { return strings.Join(s, "") })
)

// part writes one entity and returns the contents of its leaves.
func drawPart(t *rapid.T, w io.Writer, depth int, binary bool) []string {
	switch rapid.IntRange(0, 5).Draw(t, "kind") {
	case 0, 1:
		if depth < 4 {
			return drawMultipart(t, w, depth, binary)
		}
	case 2:
		if depth < 4 {
			fmt.Fprintf(w, "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: %s\r\n\r\nSubject: inner\r\nMIME-Version: 1.0\r\n", label(binary))
			return drawPart(t, w, depth+1, binary)
		}
	}
	return drawLeaf(t, w, binary)
}

func label(binary bool) string {
	if binary {
		return "binary"
	}
	return "8bit"
}

func drawLeaf(t *rapid.T, w io.Writer, binary bool) []string {
	content, kind := textLeaf.Draw(t, "text"), "text/plain; charset=utf-8"
	raw := rapid.Bool().Draw(t, "identity")
	if binary || !raw {
		if rapid.Bool().Draw(t, "binary") {
			content, kind = binaryLeaf.Draw(t, "octets"), "application/octet-stream"
		}
	}
	// A delimiter of a part around it can't be content.
	content = strings.ReplaceAll("\n"+content, "\n--a", "\n--A")[1:]
	if rapid.Bool().Draw(t, "one of ours in an encoding") && !raw {
		content = "--a" + content
	}
	switch {
	case raw:
		fmt.Fprintf(w, "Content-Type: %s\r\nContent-Transfer-Encoding: %s\r\n\r\n%s", kind, label(binary), content)
	case rapid.Bool().Draw(t, "base64"):
		fmt.Fprintf(w, "Content-Type: %s\r\nContent-Transfer-Encoding: base64\r\n\r\n", kind)
		for b := []byte(content); len(b) > 0; b = b[min(57, len(b)):] {
			fmt.Fprintf(w, "%s\r\n", base64.StdEncoding.EncodeToString(b[:min(57, len(b))]))
		}
	default:
		fmt.Fprintf(w, "Content-Type: %s\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n", kind)
		var b strings.Builder
		q := quotedprintable.NewWriter(&b)
		q.Binary = true
		_, _ = io.WriteString(q, content)
		_ = q.Close()
		_, _ = io.WriteString(w, strings.ReplaceAll(b.String(), "--a", "=2D-a"))
	}
	return []string{content}
}

func drawMultipart(t *rapid.T, w io.Writer, depth int, binary bool) (all []string) {
	m := multipart.NewWriter(w)
	// Boundaries begin alike, so that one is the start of another.
	_ = m.SetBoundary("a" + strings.Repeat("1", depth))
	fmt.Fprintf(w, "Content-Type: multipart/mixed; boundary=%q\r\nContent-Transfer-Encoding: %s\r\n\r\n", m.Boundary(), label(binary))
	for range rapid.IntRange(1, 3).Draw(t, "parts") {
		var b bytes.Buffer
		all = append(all, drawPart(t, &b, depth+1, binary)...)
		header, body, _ := strings.Cut(b.String(), "\r\n\r\n")
		h := make(textproto.MIMEHeader)
		for line := range strings.SplitSeq(header, "\r\n") {
			k, v, _ := strings.Cut(line, ": ")
			h.Set(k, v)
		}
		p, err := m.CreatePart(h)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(p, body)
	}
	_ = m.Close()
	return all
}

// readLeaves reads a message with the standard library.
func readLeaves(kind, encoding string, body []byte) (all []string, err error) {
	media, params, err := stdmime.ParseMediaType(kind)
	if err != nil {
		return nil, err
	}
	switch {
	case strings.HasPrefix(media, "multipart/"):
		r := multipart.NewReader(bytes.NewReader(body), params["boundary"])
		for {
			p, err := r.NextRawPart()
			if errors.Is(err, io.EOF) {
				return all, nil
			}
			if err != nil {
				return nil, err
			}
			b, err := io.ReadAll(p)
			if err != nil {
				return nil, err
			}
			inner, err := readLeaves(p.Header.Get("Content-Type"), p.Header.Get("Content-Transfer-Encoding"), b)
			if err != nil {
				return nil, err
			}
			all = append(all, inner...)
		}
	case media == "message/rfc822":
		return readMessage(body)
	case encoding == "base64":
		b, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, bytes.NewReader(body)))
		return []string{string(b)}, err
	case encoding == "quoted-printable":
		b, err := io.ReadAll(quotedprintable.NewReader(bytes.NewReader(body)))
		return []string{string(b)}, err
	}
	return []string{string(body)}, nil
}

func readMessage(msg []byte) ([]string, error) {
	header, body, _ := bytes.Cut(msg, []byte("\r\n\r\n"))
	h := mail.ParseHeader(append(header, "\r\n"...))
	return readLeaves(h.Get("Content-Type"), h.Get("Content-Transfer-Encoding"), body)
}

// Whatever a message is made of: 7-bit hosts get 7-bit octets of it, no leaf changes, and the mailbox form has the same
// leaves again.
func TestRoundTrip(t *testing.T) {
	ours := converter(t, Config{Mailbox: mailboxBinary})
	text := converter(t, Config{Mailbox: mailbox8Bit})
	rapid.Check(t, func(rt *rapid.T) {
		binary := rapid.Bool().Draw(rt, "binary")
		b := bytes.NewBufferString("Subject: x\r\nMIME-Version: 1.0\r\n")
		want := drawMultipart(rt, b, 0, binary)
		msg := b.String()
		for _, target := range []mail.Target{sevenBit, eightBit} {
			wire, _, err := run(t, ours, msg, target, false)
			if err != nil {
				rt.Fatalf("%v\n%s", err, msg)
			}
			if s := scanBytes([]byte(wire)); s.class() > takes(target) {
				rt.Fatalf("the wire form holds %+v:\n%q", s, wire)
			}
			sameLeaves(rt, "wire", wire, want)
			for name, c := range map[string]*Converter{"binary": ours, "8bit": text} {
				kept, _, err := run(t, c, wire, mailbox, false)
				if err != nil {
					rt.Fatal(err)
				}
				sameLeaves(rt, name+" mailbox", kept, want)
			}
		}
	})
}

func sameLeaves(t *rapid.T, what, msg string, want []string) {
	t.Helper()
	got, err := readMessage([]byte(msg))
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("the %s form has\n%q\nnot\n%q, %v; it is\n%s", what, got, want, err, msg)
	}
}
