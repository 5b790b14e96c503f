package smtpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

// The parts of scripts. A message to b, from nobody.
const (
	commands = "C: MAIL FROM:<> SIZE=20\nC: RCPT TO:<b@y.example>\nC: DATA\n"
	goOn     = "S! 250 ok\\r\\n250 ok\\r\\n354 go\\r\\n\n"
	lines    = "C. Subject: x\\r\\n\\r\\nbody\\r\\n\n"
)

// inTurn sends messages to b, each of which is begun behind the one before if the connection has it so. It returns what came of
// each: the results and the error, if any.
func inTurn(ctx context.Context, c *Conn, messages ...*Transaction) (came []string, errs []error) {
	begun := messages[0]
	for i := range messages {
		t := begun
		if begun = nil; t == nil {
			t = messages[i]
		}
		results, err := t.Send(ctx, func() *Transaction {
			if i+1 < len(messages) {
				begun = messages[i+1]
			}
			return begun
		})
		text := told(results)
		if err != nil {
			text += ", " + err.Error()
		}
		came, errs = append(came, text), append(errs, err)
	}
	return came, errs
}

func messages(c *Conn, n int) (list []*Transaction) {
	for range n {
		list = append(list, c.Transaction(envelope("", "b@y.example"), mail.Bytes([]byte(short))))
	}
	return list
}

// oneByOne reads a byte at a time.
type oneByOne struct {
	net.Conn
	r io.Reader
}

func (o oneByOne) Read(b []byte) (int, error) { return o.r.Read(b) }

// What comes behind the final dot belongs to the next message, and what the peer says to the dot to the one before.
func TestBegunBehind(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		n            int
		want         string
		writes       int32
		unanswered   bool // the last one
		useless      bool
	}{
		{"three", commands + goOn + lines + commands + "S: 250 one\n" + goOn + lines + commands + "S: 250 two\n" + goOn + lines + "S: 250 three", 3,
			"dot 250 one; dot 250 two; dot 250 three", 4, false, false},
		{"answers in one piece", commands + goOn + lines + commands + `S! 250 one\r\n250 ok\r\n250 ok\r\n354 go\r\n` + "\n" + lines + "S: 250 two", 2,
			"dot 250 one; dot 250 two", 3, false, false},
		{"refused for now", commands + goOn + lines + commands + "S: 451 full\n" + goOn + lines + "S: 250 two", 2,
			"dot 451 full; dot 250 two", 3, false, false},
		{"refused", commands + goOn + lines + commands + "S: 554 spam\n" + goOn + lines + "S: 250 two", 2,
			"dot 554 spam; dot 250 two", 3, false, false},
		{"421 to the dot", commands + goOn + lines + commands + "S: 421 bye\nX", 2,
			"dot 421 bye, dot: 421 bye;  0, mail: use of closed network connection", 2, true, true},
		{"421 to the dot and yes to the rest", commands + goOn + lines + commands + `S! 421 bye\r\n250 ok\r\n250 ok\r\n354 go\r\n` + "\nW", 2,
			"dot 421 bye, dot: 421 bye;  0, mail: use of closed network connection", 2, true, true},
		{"no answer to the dot", commands + goOn + lines + commands + "X", 2,
			" 0, dot: EOF;  0, mail: use of closed network connection", 2, true, true},
		{"354 to the dot", commands + goOn + lines + commands + "S: 354 go\nW", 2,
			` 0, dot: the peer answered with "354 go", which has no meaning here;  0, mail: use of closed network connection`, 2, true, true},
		{"closed after the answer", commands + goOn + lines + commands + "S: 250 one\nX", 2,
			"dot 250 one;  0, mail: EOF", 2, true, true},
		{"421 to the next MAIL", commands + goOn + lines + commands + "S: 250 one\nS: 421 enough\nX", 2,
			"dot 250 one; mail 421 enough, mail: 421 enough", 2, true, true},
		{"closed after the next MAIL", commands + goOn + lines + commands + "S: 250 one\nS: 250 ok\nX", 2,
			"dot 250 one;  0, rcpt: EOF", 2, false, true},
		{"MAIL refused", commands + goOn + lines + commands + "S: 250 one\n" + `S! 550 not you\r\n503 x\r\n503 x\r\n` + "\nW", 2,
			"dot 250 one;  0, mail: 550 not you", 2, true, true},
		{"nobody known, and 354", commands + goOn + lines + commands + "S: 250 one\n" + `S! 250 ok\r\n550 who?\r\n354 go\r\n` +
			"\nC. \nS: 554 no recipients\n" + commands + goOn + lines + "S: 250 three", 3,
			"dot 250 one; rcpt 550 who?; dot 250 three", 5, false, false},
		{"DATA refused", commands + goOn + lines + commands + "S: 250 one\n" + `S! 250 ok\r\n250 ok\r\n451 not now\r\n` + "\nW", 2,
			"dot 250 one; data 451 not now", 2, false, false},
	} {
		for _, single := range []bool{false, true} {
			t.Run(fmt.Sprint(tt.name, " ", single), func(t *testing.T) {
				c, w := openTCP(t, ehloAll+tt.script)
				if single {
					c.r.Reset(oneByOne{w, iotest.OneByteReader(w)})
				}
				c.prompt = true
				came, errs := inTurn(t.Context(), c, messages(c, tt.n)...)
				if got := strings.Join(came, "; "); got != tt.want {
					t.Errorf("got\n%s\nwant\n%s", got, tt.want)
				}
				var e *Error
				if errors.As(errs[tt.n-1], &e); (e != nil && e.Unanswered) != tt.unanswered || c.Usable() == tt.useless {
					t.Errorf("%v, unanswered: %v, usable: %v", e, e != nil && e.Unanswered, c.Usable())
				}
				if e != nil && e.Reply.Permanent() {
					t.Errorf("%v would be the end of a message that the peer has said nothing of", e.Reply)
				}
				if n := w.writes.Load(); n != tt.writes {
					t.Errorf("%d writes, want %d", n, tt.writes)
				}
				w.finish(t)
			})
		}
	}
}

// Some recipients of the next message are refused.
func TestBegunWithRecipients(t *testing.T) {
	c, w := open(t, ehloAll+commands+goOn+lines+`
		C: MAIL FROM:<> SIZE=20
		C: RCPT TO:<b@y.example>
		C: RCPT TO:<c@y.example>
		C: DATA
		S! 250 one\r\n250 ok\r\n550 who?\r\n250 ok\r\n354 go\r\n
		`+lines+"S: 250 two")
	c.prompt = true
	second := c.Transaction(envelope("", "b@y.example", "c@y.example"), mail.Bytes([]byte(short)))
	came, _ := inTurn(t.Context(), c, messages(c, 1)[0], second)
	if came[0] != "dot 250 one" || came[1] != "rcpt 550 who?\ndot 250 two" {
		t.Errorf("%q", came)
	}
	w.finish(t)
}

func TestBegunLMTP(t *testing.T) {
	two := "C: MAIL FROM:<>\nC: RCPT TO:<a@y.example>\nC: RCPT TO:<b@y.example>\nC: DATA\n"
	c, w := openWith(t, Options{LMTP: true}, dialogue(t, "S: 220 lmtp\nC: LHLO me.example\nS! 250-x\\r\\n250 PIPELINING\\r\\n\n"+two+`
		S! 250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n
		`+lines+two+`
		S! 250 stored\r\n452 full\r\n250 ok\r\n550 who?\r\n250 ok\r\n354 go\r\n
		`+lines+"S: 250 stored"))
	c.prompt = true
	env := envelope("", "a@y.example", "b@y.example")
	came, _ := inTurn(t.Context(), c, c.Transaction(env, mail.Bytes([]byte(short))), c.Transaction(env, mail.Bytes([]byte(short))))
	if got := strings.Join(came, "; "); got != "dot 250 stored\ndot 452 full; rcpt 550 who?\ndot 250 stored" {
		t.Error(got)
	}
	w.finish(t)
}

// Chunks can't carry what follows, but their commands can be what follows.
func TestBegunBinary(t *testing.T) {
	c, w := open(t, ehloAll+commands+goOn+lines+`
		C: MAIL FROM:<> SIZE=9 BODY=BINARYMIME
		C: RCPT TO:<b@y.example>
		S! 250 one\r\n250 ok\r\n250 ok\r\n
		C: BDAT 9 LAST
		C# 9 a\n.\r\r\n\x00\n.
		S: 250 two`)
	c.prompt = true
	env := envelope("", "b@y.example")
	env.Body = mail.BodyBinary
	came, _ := inTurn(t.Context(), c, messages(c, 1)[0], c.Transaction(env, mail.Bytes([]byte("a\n.\r\r\n\x00\n."))))
	if got := strings.Join(came, "; "); got != "dot 250 one; dot 250 two" || w.writes.Load() != 4 {
		t.Errorf("%s, %d writes", got, w.writes.Load())
	}
	w.finish(t)
}

// Only behind the last block of the content something goes out.
func TestBegunBehindLastBlock(t *testing.T) {
	big := strings.Repeat(strings.Repeat("x", 62)+"\r\n", 3*blockSize/64)
	c, w := open(t, strings.Replace(ehloAll, "SIZE 1000", "SIZE 1000000", 1)+
		strings.Replace(commands, "20", fmt.Sprint(len(big)), 1)+goOn+"C. "+strings.ReplaceAll(big, "\r\n", `\r\n`)+"\n"+commands+"S: 250 one\n"+goOn+lines+"S: 250 two")
	c.prompt = true
	came, _ := inTurn(t.Context(), c, c.Transaction(envelope("", "b@y.example"), mail.Bytes([]byte(big))), messages(c, 1)[0])
	if got := strings.Join(came, "; "); got != "dot 250 one; dot 250 two" || w.writes.Load() != 1+3+1 {
		t.Errorf("%s, %d writes", got, w.writes.Load())
	}
	w.finish(t)
}

// Nobody is asked for another message where none can be begun.
func TestNothingBegun(t *testing.T) {
	step := "C: MAIL FROM:<>\nS: 250 ok\nC: RCPT TO:<b@y.example>\nS: 250 ok\nC: DATA\nS: 354 go\n"
	binary := envelope("", "b@y.example")
	binary.Body = mail.BodyBinary
	text := mail.Bytes([]byte(short))
	big := strings.Repeat("x\r\n", blockSize)
	for _, tt := range []struct {
		name, script string
		fresh        bool
		env          *mail.Envelope
		content      mail.Content
	}{
		{"no PIPELINING", ehloNone + step + lines + "S: 250 ok", false, envelope("", "b@y.example"), text},
		{"the first message", ehloAll + commands + goOn + lines + "S: 250 ok", true, envelope("", "b@y.example"), text},
		{"nobody known", ehloAll + commands + "S! 250 ok\\r\\n550 who?\\r\\n354 go\\r\\n\nC. \nS: 554 no", false, envelope("", "b@y.example"), text},
		{"BDAT", ehloAll + "C: MAIL FROM:<> SIZE=20 BODY=BINARYMIME\nC: RCPT TO:<b@y.example>\nS! 250 ok\\r\\n250 ok\\r\\n\nC: BDAT 20 LAST\n" +
			"C# 20 Subject: x\\r\\n\\r\\nbody\\r\\n\nS: 250 ok", false, binary, text},
		{"damaged", strings.Replace(ehloAll, "SIZE 1000", "SIZE 1000000", 1) + strings.Replace(commands, "20", fmt.Sprint(len(big)), 1) + goOn + "E",
			false, envelope("", "b@y.example"), damaged{mail.Bytes([]byte(big))}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, w := open(t, tt.script)
			c.prompt = !tt.fresh
			_, err := c.Transaction(tt.env, tt.content).Send(t.Context(), func() *Transaction {
				t.Error("it was asked for another")
				return nil
			})
			if (err != nil) != (tt.name == "damaged") {
				t.Error(err)
			}
			w.finish(t)
		})
	}
}

// A message that can't be begun behind another is sent after it.
func TestNotBegun(t *testing.T) {
	many := &mail.Envelope{}
	for range maxGroup - 1 {
		many.To = append(many.To, mail.Recipient{Address: mail.MustParseAddress("b@y.example")})
	}
	tooBig := mail.Bytes([]byte(strings.Repeat("x\r\n", 400)))
	for _, tt := range []struct {
		name, script string
		env          *mail.Envelope
		content      mail.Content
		want         string
	}{
		{"too many recipients", "C: MAIL FROM:<> SIZE=20\n" + strings.Repeat("C: RCPT TO:<b@y.example>\n", maxGroup-1) +
			"S! " + strings.Repeat(`250 ok\r\n`, maxGroup) + "\nC: DATA\nS: 354 go\n" + lines + "S: 250 two", many, mail.Bytes([]byte(short)), "dot 250 two"},
		{"too big", "W", envelope("", "b@y.example"), tooBig, "mail 552 5.3.4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, w := open(t, ehloAll+commands+goOn+lines+"S: 250 one\n"+tt.script)
			c.prompt = true
			first := messages(c, 1)[0]
			asked := 0
			second := c.Transaction(tt.env, tt.content)
			results, err := first.Send(t.Context(), func() *Transaction { asked++; return second })
			if got := told(results); err != nil || got != "dot 250 one" || asked != 1 || second.Begun() || w.writes.Load() != 2 {
				t.Fatalf("%s, %v, asked %d times, %d writes", got, err, asked, w.writes.Load())
			}
			results, err = second.Send(t.Context(), nil)
			if got, _, _ := strings.Cut(told(results), "\n"); err != nil || !strings.HasPrefix(got, tt.want) {
				t.Errorf("%s, %v", got, err)
			}
			w.finish(t)
		})
	}
}

// A message behind one whose answer is long in coming waits with it: a peer that is slow gets them one by one.
func TestNothingBegunBehindSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			io.WriteString(server, "220 x\r\n")
			b := make([]byte, 1000)
			for n, err := server.Read(b); err == nil; n, err = server.Read(b) {
				answer := "250 ok\r\n250 ok\r\n354 go\r\n"
				switch {
				case strings.HasPrefix(string(b[:n]), "EHLO"):
					answer = "250-x\r\n250 PIPELINING\r\n"
				case strings.HasPrefix(string(b[:n]), "Subject"):
					time.Sleep(time.Second)
					answer = "250 ok\r\n"
				}
				io.WriteString(server, answer)
			}
		}()
		c := New(client, Options{Hostname: "me.example"})
		if err := errors.Join(c.Greet(t.Context()), c.Hello(t.Context())); err != nil {
			t.Fatal(err)
		}
		c.prompt = true // as it was before
		for i := range 3 {
			results, err := messages(c, 1)[0].Send(t.Context(), func() *Transaction {
				if i > 0 {
					t.Error("it was asked for another")
				}
				return nil
			})
			if got := told(results); err != nil || got != "dot 250 ok" {
				t.Error(got, err)
			}
		}
		c.Close()
	})
}

// The first message is over when its own answer is there, and a peer that stays silent then concerns the next one alone. So
// does one that is silent at the dot: what it says later belongs to nobody.
func TestSilenceBetween(t *testing.T) {
	for _, tt := range []struct{ script, want string }{
		{"S: 250 one\nH", "dot 250 one;  0, mail: no answer within 5m0s"},
		{"H", " 0, dot: no answer within 10m0s;  0, mail: use of closed network connection"},
	} {
		synctest.Test(t, func(t *testing.T) {
			c, _ := open(t, ehloAll+commands+goOn+lines+commands+tt.script)
			c.prompt = true
			came, errs := inTurn(t.Context(), c, messages(c, 2)...)
			var e *Error
			if got := strings.Join(came, "; "); got != tt.want || !errors.As(errs[1], &e) || !e.Unanswered {
				t.Errorf("got %q, %v", got, errs)
			}
			c.Close()
		})
	}
}

// The context of one message ends; nothing of the next is sent that was not, and no dot.
func TestCancelledBetween(t *testing.T) {
	c, w := open(t, ehloAll+commands+goOn+lines+commands+"S: 250 one\nE")
	c.prompt = true
	list := messages(c, 2)
	ctx, cancel := context.WithCancel(t.Context())
	results, err := list[0].Send(ctx, func() *Transaction { return list[1] })
	if got := told(results); err != nil || got != "dot 250 one" {
		t.Error(got, err)
	}
	cancel()
	results, err = list[1].Send(ctx, nil)
	if !errors.Is(err, context.Canceled) || results[0].Reply.Code != 0 || c.Usable() {
		t.Errorf("%v, %v", results, err)
	}
	w.finish(t)
}

// A message that can't be read when its turn comes is not ended.
func TestBegunAndDamaged(t *testing.T) {
	c, w := open(t, ehloAll+commands+goOn+lines+commands+"S: 250 one\nE")
	c.prompt = true
	second := c.Transaction(envelope("", "b@y.example"), mail.Bytes([]byte("Subject: x\r\n\r\nbod\n\r\n")))
	came, _ := inTurn(t.Context(), c, messages(c, 1)[0], second)
	if came[0] != "dot 250 one" || !strings.HasPrefix(came[1], "data 554 5.6.0") || c.Usable() {
		t.Errorf("%q, %v", came, c.Usable())
	}
	c.Close()
	w.finish(t)
}

// Another message than the one that was begun would get its answers.
func TestAnotherThanBegun(t *testing.T) {
	c, w := open(t, ehloAll+commands+goOn+lines+commands+"S: 250 one\nW")
	c.prompt = true
	list := messages(c, 3)
	if results, err := list[0].Send(t.Context(), func() *Transaction { return list[1] }); err != nil || told(results) != "dot 250 one" {
		t.Error(told(results), err)
	}
	var e *Error
	if results, err := list[2].Send(t.Context(), nil); !errors.As(err, &e) || !e.Unanswered || results[0].Reply.Code != 0 || c.Usable() {
		t.Error(told(results), err)
	}
	w.finish(t)
}

// A panic leaves a connection that nobody uses.
func TestPanicBreaks(t *testing.T) {
	c, w := open(t, ehloAll+commands+goOn+"E")
	c.prompt = true
	func() {
		defer func() {
			if recover() == nil || c.Usable() {
				t.Error("the connection can be used")
			}
		}()
		messages(c, 1)[0].Send(t.Context(), func() *Transaction { panic("oh") })
	}()
	c.Close()
	w.finish(t)
}

// A peer that answers the dot and closes without having read on: its system then says that the connection is gone, and the
// answer counts all the same.
func TestClosedUnread(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			p, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(p, "220 x\r\n")
			upTo(p, "EHLO me.example\r\n")
			io.WriteString(p, "250-x\r\n250 PIPELINING\r\n")
			upTo(p, "DATA\r\n")
			io.WriteString(p, "250 ok\r\n250 ok\r\n354 go\r\n")
			upTo(p, "\r\n.\r\n")
			io.WriteString(p, "250 one\r\n")
			p.Close()
		}
	}()
	for range 20 {
		n, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c := New(n, Options{Hostname: "me.example"})
		if err := errors.Join(c.Greet(t.Context()), c.Hello(t.Context())); err != nil {
			t.Fatal(err)
		}
		c.prompt = true
		came, errs := inTurn(t.Context(), c, messages(c, 2)...)
		var e *Error
		if came[0] != "dot 250 one" || !errors.As(errs[1], &e) || !e.Unanswered {
			t.Fatalf("%q", came)
		}
		c.Close()
	}
}

// upTo reads no further than the text.
func upTo(r io.Reader, text string) {
	var got []byte
	for b := make([]byte, 1); !strings.HasSuffix(string(got), text); got = append(got, b[0]) {
		if _, err := r.Read(b); err != nil {
			return
		}
	}
}
