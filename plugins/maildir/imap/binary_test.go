package imap

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// pictured delivers a message whose part 1 is base64 of n bytes, which it returns, and opens the inbox that it is in.
func pictured(r *rig, n int) (content []byte, send func(command string), read func() string, body io.Reader) {
	r.t.Helper()
	content = make([]byte, n)
	chaos := rand.NewChaCha8([32]byte{1})
	_, _ = chaos.Read(content)
	var lines strings.Builder
	for text := base64.StdEncoding.EncodeToString(content); text != ""; {
		line := text[:min(76, len(text))]
		text = text[len(line):]
		lines.WriteString(line + " \r\n") // the space is not base64, and left out
	}
	r.deliver("ann", "1.a.h", "Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n"+lines.String())
	conn, br := raw(r.t, r.addr)
	fmt.Fprint(conn, "a LOGIN ann right\r\nb SELECT INBOX\r\n")
	until(br, "b ")
	send = func(command string) { fmt.Fprintf(conn, "c %s\r\n", command) }
	read = func() string {
		line, err := br.ReadString('\n')
		if err != nil {
			r.t.Fatal(err)
		}
		return line
	}
	return content, send, read, br
}

// TestBinarySectionsAreNotHeld: sixty-four times a large part is sixty-four times as much to send, and not to hold.
func TestBinarySectionsAreNotHeld(t *testing.T) {
	r := newRig(t, nil)
	content, send, read, body := pictured(r, 512<<10)
	want := sha256.Sum256(content)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	send("FETCH 1 (" + strings.Repeat("BINARY.PEEK[1] ", maxSections-1) + "BINARY.SIZE[1])")
	literal := regexp.MustCompile(`~\{(\d+)\}\r\n$`)
	line, sections := read(), 0
	for ; literal.MatchString(line); sections++ {
		n, _ := strconv.ParseInt(literal.FindStringSubmatch(line)[1], 10, 64)
		h := sha256.New()
		if _, err := io.CopyN(h, body, n); err != nil || !bytes.Equal(h.Sum(nil), want[:]) {
			t.Fatalf("section %d of %d bytes is another: %v", sections, n, err)
		}
		line = read()
	}
	if want := fmt.Sprintf(" BINARY.SIZE[1] %d)\r\n", len(content)); sections != maxSections-1 || line != want {
		t.Errorf("%d sections, then %q, want %q", sections, line, want)
	}
	if line := read(); !strings.HasPrefix(line, "c OK") {
		t.Error(line)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
		t.Errorf("%d MiB were allocated for %d sections of 512 KiB", n>>20, sections)
	}
}

// TestBinaryWork: what is decoded only to get to where a section begins is bounded.
func TestBinaryWork(t *testing.T) {
	r := newRig(t, nil)
	content, send, read, _ := pictured(r, 100_000)
	ask := fmt.Sprintf("BINARY.PEEK[1]<%d.1> ", len(content)-1)
	send("FETCH 1 (" + strings.Repeat(ask, 3) + "UID)")
	got := read() + read() + read() + read() + read()
	last := string(content[len(content)-1:])
	if strings.Count(got, "BINARY[1] ~{1}\r\n"+last) != 3 || !strings.Contains(got, "c OK") {
		t.Errorf("three sections: %q", got)
	}
	send("FETCH 1 (" + strings.Repeat(ask, maxSections-1) + "UID)")
	if got := read(); !strings.HasPrefix(got, "c NO [LIMIT] ") {
		t.Errorf("%d sections: %q", maxSections-1, got)
	}
}
