//go:build linux

package main

import (
	"encoding/base64"
	"fmt"
	"net/smtp"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// sample is a message that is sent through a real peer and must arrive as it was.
type sample struct {
	to   []string
	text string // with LF
}

// bigSample is the number of the sample of one megabyte.
const bigSample = 7

// samples makes messages of many kinds. They go to the addresses in turn, the last one to all of them.
func samples(n int, from string, to []string) []sample {
	list := make([]sample, n)
	for i := range list {
		s := sample{to: []string{to[i%len(to)]}}
		if i == n-1 {
			s.to = to
		}
		head, body := sampleBody(i)
		s.text = fmt.Sprintf("From: <%s>\nTo: <%s>\nDate: Sun, 1 Nov 2026 12:00:00 +0900\nMessage-ID: <%d@interop.example>\n"+
			"Subject: sample %d\nX-Interop: %d\nMIME-Version: 1.0\n%s\n%s", from, s.to[0], i, i, i, head, body)
		list[i] = s
	}
	return list
}

func sampleBody(i int) (head, body string) {
	const plain = "Content-Type: text/plain; charset=us-ascii\n"
	switch {
	case i == bigSample:
		return plain, strings.Repeat("All work and no play makes a long message, sixty-three octets.\n", 1<<20/63)
	case i%5 == 1:
		return "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n", "안녕하세요. 파발이 도착했습니다.\nÄrger & Ünfug\n"
	case i%5 == 2:
		return plain, ".\n..\n...\n.a\n. \n\nFrom the start of a line\n>From\n.\n"
	case i%5 == 3:
		return plain, strings.Repeat("x", 998) + "\ntrailing blanks  \t\n" + strings.Repeat("y", 997) + ".\n\n\nend\n"
	case i%5 == 4:
		return "Content-Type: multipart/mixed; boundary=\"b-1\"\n", sampleParts(i)
	}
	return plain, "A plain message.\n"
}

// sampleParts is a body of 8-bit Latin-1 and of every octet as an attachment.
func sampleParts(i int) string {
	octets := make([]byte, 256)
	for j := range octets {
		octets[j] = byte(i + j)
	}
	coded := base64.StdEncoding.EncodeToString(octets)
	var lines strings.Builder
	for ; len(coded) > 76; coded = coded[76:] {
		lines.WriteString(coded[:76] + "\n")
	}
	lines.WriteString(coded + "\n")
	return "a preamble\n--b-1\nContent-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: 8bit\n\nGr\xfc\xdfe\n.\n" +
		"--b-1\nContent-Type: application/octet-stream; name=all.bin\nContent-Transfer-Encoding: base64\n" +
		"Content-Disposition: attachment; filename=all.bin\n\n" + lines.String() + "--b-1--\nan epilogue\n"
}

// sentTo counts the samples that go to an address.
func sentTo(address string, list []sample) int {
	n := 0
	for _, s := range list {
		if slices.Contains(s.to, address) {
			n++
		}
	}
	return n
}

// hand gives the samples to a server, all in one connection.
func hand(t *testing.T, address, from string, list []sample) {
	t.Helper()
	c, err := smtp.Dial(address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i, s := range list {
		if err := handOne(c, from, s); err != nil {
			t.Fatalf("sample %d: %v", i, err)
		}
	}
	if err := c.Quit(); err != nil {
		t.Fatal(err)
	}
}

func handOne(c *smtp.Client, from string, s sample) error {
	if err := c.Mail(from); err != nil {
		return err
	}
	for _, to := range s.to {
		if err := c.Rcpt(to); err != nil {
			return fmt.Errorf("%s: %w", to, err)
		}
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	// The writer doubles dots; a CR of our own keeps it from guessing at line ends.
	if _, err := w.Write([]byte(strings.ReplaceAll(s.text, "\n", "\r\n"))); err != nil {
		return err
	}
	return w.Close()
}

var sampleNumber = regexp.MustCompile(`(?m)^X-Interop: (\d+)$`)

// numberOf finds which sample a stored message is; -1 is none.
func numberOf(stored string) int {
	m := sampleNumber.FindStringSubmatch(stored)
	if m == nil {
		return -1
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

// sameSamples proves that the stored messages are these samples, each so many times as it has recipients, and not changed
// but for header fields that were put before them.
func sameSamples(t *testing.T, list []sample, stored []string) {
	t.Helper()
	seen := make([]int, len(list))
	for _, text := range stored {
		i := numberOf(text)
		if i < 0 || i >= len(list) {
			t.Errorf("this is none of the samples:\n%.2000s", text)
			continue
		}
		seen[i]++
		if !strings.HasSuffix(text, list[i].text) {
			t.Errorf("sample %d was changed: %s", i, difference(text, list[i].text))
		}
	}
	for i, s := range list {
		if seen[i] != len(s.to) {
			t.Errorf("sample %d arrived %d times, not %d", i, seen[i], len(s.to))
		}
	}
}

// difference shows where the end of a stored message begins to differ from what it should be.
func difference(stored, want string) string {
	_, body, _ := strings.Cut(stored, "\nFrom: ")
	body = "From: " + body
	same := 0
	for same < min(len(body), len(want)) && body[same] == want[same] {
		same++
	}
	return fmt.Sprintf("after %d octets it goes on with %.80q, not %.80q", same, body[same:], want[same:])
}

// content is what a mail program sees in a message: the decoded parts, one a line, told by Python's parser.
func content(t *testing.T, text string) string {
	t.Helper()
	cmd := exec.Command("python3", "testdata/interop/content.py")
	cmd.Stdin = strings.NewReader(text)
	return mustRun(t, cmd)
}

// isASCII reports a text that a 7-bit wire can carry.
func isASCII(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r > 126 })
}
