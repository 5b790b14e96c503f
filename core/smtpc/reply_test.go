package smtpc

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/pabal-mta/mta/sdk/mail"
)

func TestReply(t *testing.T) {
	long := strings.Repeat("x", 3000)
	for _, tt := range []struct {
		name, in string
		want     string // Reply.String with "\n" shown as "|"
	}{
		{"plain", "250 OK\r\n", "250 OK"},
		{"enhanced", "550 5.1.1 no such mailbox\r\n", "550 5.1.1 no such mailbox"},
		{"code alone", "250\r\n", "250"},
		{"code and space", "250 \r\n", "250"},
		{"enhanced alone", "550 5.7.2\r\n", "550 5.7.2"},
		{"enhanced of another class stays text", "550 4.7.1 greylisted\r\n", "550 4.7.1 greylisted"},
		{"bare LF", "250 OK\n", "250 OK"},
		{"two lines", "250-one\r\n250 two\r\n", "250 one|two"},
		{"enhanced on each line", "550-5.7.1 one\r\n550 5.7.1 two\r\n", "550 5.7.1 one|two"},
		{"other enhanced on the second line", "550-5.7.1 one\r\n550 5.7.9 two\r\n", "550 5.7.1 one|5.7.9 two"},
		{"controls", "550 a\x00b\x1b[31mc\rd\te\r\n", "550 a b [31mc d e"},
		{"C1 controls and line separators", "550 a\u0085b\u2028c\r\n", "550 a b c"},
		{"8-bit", "550 caf\xe9\r\n", "550 caf\uFFFD"},
		{"UTF-8", "550 café 파발\r\n", "550 café 파발"},
		{"long line", "550 " + long + "\r\n", "550 " + long[:maxReplyText]},
		{"line longer than the buffer", "550 " + strings.Repeat(long, 4) + "\r\n", "550 " + long[:maxReplyText]},
		{"cut inside a character", "550 x" + strings.Repeat("é", 2000) + "\r\n", "550 x" + strings.Repeat("é", 949)},
		{"invalid octets grow", "550 " + strings.Repeat("\xff", 1900) + "\r\n", "550 " + strings.Repeat("\uFFFD", 633)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := readReply(bufio.NewReaderSize(strings.NewReader(tt.in), 4096), nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Check(); err != nil {
				t.Error(err)
			}
			shown := r
			shown.Text = strings.ReplaceAll(r.Text, "\n", "|")
			if shown.String() != tt.want {
				t.Errorf("got %q\nwant %q", shown.String(), tt.want)
			}
		})
	}
}

func TestReplyRefused(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"nothing", "", "EOF"},
		{"cut in a line", "250 O", "unexpected EOF"},
		{"cut between lines", "250-\r\n", "unexpected EOF"},
		{"enhanced code only", "5.7.2\r\n", "does not speak SMTP"},
		{"one digit", "5\r\n", "does not speak SMTP"},
		{"empty line", "\r\n", "does not speak SMTP"},
		{"999", "999 x\r\n", "does not speak SMTP"},
		{"preliminary", "100 x\r\n", "does not speak SMTP"},
		{"four digits", "2500 x\r\n", "does not speak SMTP"},
		{"HTTP", "HTTP/1.1 400 Bad Request\r\n", "does not speak SMTP"},
		{"escape in junk", "\x1b[2Jboo\r\n", `" [2Jboo"`},
		{"mixed codes", "250-OK\r\n550 no\r\n", "250 on one line and 550 on another"},
		{"endless lines", strings.Repeat("250-more\r\n", 20000), "longer than 100000 bytes"},
		{"endless line", "250 " + strings.Repeat("x", 200000) + "\r\n", "longer than 100000 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := strings.NewReader(tt.in)
			r, err := readReply(bufio.NewReaderSize(in, 4096), nil)
			if err == nil {
				t.Fatalf("got %q", r.String())
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %q, want %q", err, tt.want)
			}
			if read := len(tt.in) - in.Len(); read > maxReply+2*4096 {
				t.Errorf("%d bytes were read", read)
			}
		})
	}
}

func TestReplyByteByByte(t *testing.T) {
	in := iotest.OneByteReader(strings.NewReader("250-one\r\n250 two\r\n220 next\r\n"))
	br := bufio.NewReader(in)
	for _, want := range []string{"250 one two", "220 next"} {
		if r, err := readReply(br, nil); err != nil || r.String() != want {
			t.Errorf("got %q, %v", r.String(), err)
		}
	}
}

func TestCaps(t *testing.T) {
	var c Caps
	for _, line := range []string{"pipelining", "StartTLS", "8bitmime", "chunking", "BINARYMIME", "smtputf8", "dsn", "size 1000",
		"auth plain Login", "AUTH=LOGIN CRAM-MD5", "", "  ", "X-NONSENSE \x00", "requiretls", "mt-priority MIXER"} {
		c.add([]byte(line))
	}
	if !c.Pipelining || !c.StartTLS || !c.EightBit || !c.Chunking || !c.Binary || !c.UTF8 || !c.DSN || !c.RequireTLS || !c.Priority || c.MaxSize != 1000 {
		t.Errorf("got %+v", c)
	}
	if got := strings.Join(c.Auth, " "); got != "PLAIN LOGIN CRAM-MD5" {
		t.Errorf("mechanisms %q", got)
	}
	for _, size := range []string{"SIZE", "SIZE 0", "SIZE -1", "SIZE 99999999999999999999", "SIZE x"} {
		var c Caps
		if c.add([]byte(size)); !c.Size || c.MaxSize != 0 {
			t.Errorf("%s: %+v", size, c)
		}
	}
}

func FuzzReply(f *testing.F) {
	for _, s := range []string{"250 OK\r\n", "550-5.7.1 a\r\n550 5.7.1 b\r\n", "5.7.2\r\n", "999 x\n", "250-\r\n", "250-a\n550 b\n",
		"421 4.4.2 \x00\x1b\xff\r\n", "250 5..1\r\n", "250 2.1.5\r\n250 x", "200-" + strings.Repeat("\xf0\x9f", 3000) + "\n200\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var caps Caps
		br := bufio.NewReaderSize(bytes.NewReader(in), 4096)
		for {
			r, err := readReply(br, caps.add)
			if err != nil {
				if strings.ContainsAny(err.Error(), "\r\n\x00\x1b") {
					t.Fatalf("the error holds controls: %q", err)
				}
				return
			}
			if err := r.Check(); err != nil {
				t.Fatalf("%q: %v", in, err)
			}
		}
	})
}

func TestStuffing(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"nothing", "", ".\r\n"},
		{"no dot", "a\r\n", "a\r\n.\r\n"},
		{"dot first", ".a\r\n", "..a\r\n.\r\n"},
		{"dot alone", "a\r\n.\r\nb\r\n", "a\r\n..\r\nb\r\n.\r\n"},
		{"dots inside", "a.b\r\n..\r\n", "a.b\r\n...\r\n.\r\n"},
		{"no last CRLF", "a", "a\r\n.\r\n"},
		{"dot at the end", "a\r\n.", "a\r\n..\r\n.\r\n"},
		{"bare LF", "a\nb\r\n", ""},
		{"bare LF first", "\nb\r\n", ""},
		{"bare CR", "a\rb\r\n", ""},
		{"bare LF and bare CR", "a\nb\rc\r\n", ""},
		{"CR at the end", "a\r\nb\r", ""},
		{"LF dot LF", "a\n.\nb\r\n", ""},
		{"CR dot CR", "a\r.\rb\r\n", ""},
		{"CR CR LF", "a\r\r\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readAll(newReader(mail.Bytes([]byte(tt.in)), false))
			if (err != nil) != (tt.want == "") || (err == nil && string(got) != tt.want) {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

func readAll(r *reader) ([]byte, error) {
	var all, b []byte
	for {
		var err error
		if b, err = r.next(b); err != nil && err != io.EOF {
			return nil, err
		}
		all = append(all, b...)
		if err == io.EOF {
			return all, nil
		}
	}
}

// Every way in which a CRLF, a dot or a bare one can lie across the edge of a block.
func TestStuffingAcrossBlocks(t *testing.T) {
	for _, mark := range []string{"\r\n.", "\r\n", ".", "\r\n.\r\n", "x\r", "\n", "\r\r\n", "\r\n.."} {
		for shift := range 6 {
			in := strings.Repeat("a", blockSize-shift) + mark + "tail\r\n"
			wrong := strings.Count(in, "\r") != strings.Count(in, "\r\n") || strings.Count(in, "\n") != strings.Count(in, "\r\n")
			got, err := readAll(newReader(mail.Bytes([]byte(in)), false))
			if wrong != (err != nil) {
				t.Errorf("%q, %d: %v", mark, shift, err)
			}
			if want := strings.ReplaceAll(in, "\r\n.", "\r\n..") + ".\r\n"; err == nil && string(got) != want {
				t.Errorf("%q, %d: stuffed wrongly", mark, shift)
			}
		}
	}
}

func FuzzStuffing(f *testing.F) {
	for _, s := range []string{"", ".", "\r\n.\r\n", "a\n.\n", "\r", ".\r\n..\r\n...\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := readAll(newReader(mail.Bytes(in), false))
		s := string(in)
		if bare := strings.ReplaceAll(s, "\r\n", ""); (err != nil) != strings.ContainsAny(bare, "\r\n") {
			t.Fatalf("%q: %v", in, err)
		}
		if err != nil {
			return
		}
		if i := strings.Index("\r\n"+string(got), "\r\n.\r\n"); i+3 != len(got) {
			t.Fatalf("%q ends early in %q", in, got)
		}
		back := strings.ReplaceAll("\r\n"+string(got[:len(got)-3]), "\r\n.", "\r\n")[2:]
		if back != s && back != s+"\r\n" {
			t.Fatalf("%q came back as %q", in, back)
		}
	})
}
