package smtpd

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// ends are octets that some server somewhere has taken for the end of a body. Only the first row is one.
var ends = []struct {
	seq  string
	end  bool
	bare bool // it holds a CR or LF of its own, or a NUL
}{
	{"\r\n.\r\n", true, false},
	{"\n.\n", false, true},
	{"\n.\r\n", false, true},
	{"\r\n.\n", false, true},
	{"\r.\r", false, true},
	{"\r.\r\n", false, true},
	{"\r\n.\r", false, true},
	{"\n.\r", false, true},
	{"\r.\n", false, true},
	{"\r\r\n.\r\n", true, true}, // the first CR is bare, what follows it is an end
	{"\n\r\n.\r\n", true, true},
	{"\r\n.\r\r\n", false, true},
	{"\r\n\x00.\r\n", false, true},
	{"\r\n.\x00\r\n", false, true},
	{"\r\x00\n.\r\n", false, true},
	{"\r\n.\r\x00\n", false, true},
	{"\r\n\r.\r\n", false, true},
	{"\r\n.\n\r\n", false, true},
	{"\r\n..\r\n", false, false},
	{"\r\n. \r\n", false, false},
	{"\r\n .\r\n", false, false},
	{"\r\n.\t\r\n", false, false},
	{"\x85.\x85", false, false},
	{"\u2028.\u2028", false, false},
	{"%0d%0a.%0d%0a", false, false},
}

const tail = "MAIL FROM:<evil@client.example>\r\nRCPT TO:<bob@ours.example>\r\nDATA\r\nFrom: evil\r\n\r\nsmuggled\r\n.\r\nQUIT\r\n"

// want is what must be queued after a body with the sequence in it and the tail after that, by the rule of RFC 5321.
func want(seq string, end, bare, normalize bool) []string {
	first := "Subject: x\r\n\r\nbody"
	smuggled := "From: evil\r\n\r\nsmuggled\r\n"
	before, _ := strings.CutSuffix(seq, ".\r\n")
	switch {
	case bare && (!normalize || strings.Contains(seq, "\x00")):
		return nil // refused, and the connection closed
	case end:
		return []string{first + string(normalized([]byte(before))), smuggled}
	}
	// One message, with the tail's first part in it up to its own CRLF.CRLF.
	text := seq
	if strings.HasPrefix(text, "\r\n.") {
		text = "\r\n" + text[3:]
	}
	inside, _, _ := strings.Cut(tail, ".\r\nQUIT")
	return []string{string(normalized([]byte(first + text + inside)))}
}

// TestSmuggling sends each sequence in one segment, octet by octet, and with the tail in a segment of its own, and counts
// the messages that come of it.
func TestSmuggling(t *testing.T) {
	for _, mode := range []string{BareLFReject, BareLFNormalize} {
		for _, row := range ends {
			for _, cut := range []string{"whole", "octets", "tail apart"} {
				t.Run(fmt.Sprintf("%s/%q/%s", mode, row.seq, cut), func(t *testing.T) {
					in(t, func(c *Config, _ *Deps) { c.BareLF = mode }, func(t *testing.T, r *rig) {
						c := r.dial()
						c.begin()
						body := "Subject: x\r\n\r\nbody" + row.seq
						switch cut {
						case "whole":
							c.say(body + tail)
						case "octets":
							for i := range len(body + tail) {
								c.say((body + tail)[i : i+1])
							}
						default:
							c.say(body)
							c.say(tail)
						}
						checkQueued(t, r, want(row.seq, row.end, row.bare, mode == BareLFNormalize))
						c.conn.Close()
					})
				})
			}
		}
	}
}

func checkQueued(t *testing.T, r *rig, want []string) {
	t.Helper()
	got := r.take()
	if len(got) != len(want) {
		t.Fatalf("%d messages were queued, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i].text != want[i] {
			t.Errorf("message %d is\n%.300q, want\n%.300q", i+1, got[i].text, want[i])
		}
	}
}

// TestBrokenBody cuts and stalls bodies: no part of one may run as a command, and none is queued.
func TestBrokenBody(t *testing.T) {
	const body = "Subject: x\r\n\r\nbody\r\n"
	for name, test := range map[string]func(c *client){
		"closed": func(c *client) { c.conn.Close() },
		"stalled": func(c *client) {
			time.Sleep(4 * time.Minute)
			c.say(tail)
		},
		"dripping": func(c *client) {
			for range 1000 { // an octet each minute is less than the minimum rate
				time.Sleep(time.Minute)
				c.say("x")
			}
		},
		"closed before the last LF": func(c *client) {
			c.say(".\r")
			c.conn.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, nil, func(t *testing.T, r *rig) {
				c := r.dial()
				c.begin()
				c.say(body)
				test(c)
				if !c.isClosed() {
					t.Error("the connection lives on")
				}
				checkQueued(t, r, nil)
			})
		})
	}
}

// TestSlowButSteady checks that a client at twice the minimum rate may take as long as it needs.
func TestSlowButSteady(t *testing.T) {
	in(t, nil, func(t *testing.T, r *rig) {
		c := r.dial()
		c.begin()
		line := strings.Repeat("x", 998) + "\r\n"
		for range 3600 {
			time.Sleep(time.Second)
			c.say(line)
		}
		if got := c.say(".\r\n"); !strings.HasPrefix(got, "250 2.0.0 queued as Q1") {
			t.Errorf("answered %q", got)
		}
		// The body begins with no header, so an empty line parts it from our fields.
		checkQueued(t, r, []string{"\r\n" + strings.Repeat(line, 3600)})
		c.conn.Close()
	})
}
