package smtpc

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/pabal-mta/mta/sdk/mail"
)

const short = "Subject: x\r\n\r\nbody\r\n"

var ehloAll = "C: EHLO me.example\nS! 250-mx.example\\r\\n250-PIPELINING\\r\\n250-SIZE 1000\\r\\n250-8BITMIME\\r\\n" +
	"250-CHUNKING\\r\\n250-BINARYMIME\\r\\n250-SMTPUTF8\\r\\n250 DSN\\r\\n\n"

const ehloNone = "C: EHLO me.example\nS: 250 mx.example\n"

// told shows results on one line each: phase, reply, and who said so.
func told(results []Result) string {
	var lines []string
	for _, r := range results {
		line := r.Phase + " " + r.Reply.String()
		if r.Ours {
			line += " (ours)"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func TestSend(t *testing.T) {
	two := envelope("a@x.example", "b@y.example", "c@y.example")
	for _, tt := range []struct {
		name, script string
		env          *mail.Envelope
		content      string
		want         string
		writes       int32
		fails        string // text of the error
		useless      bool
	}{
		{"pipelined", ehloAll + `
			C: MAIL FROM:<a@x.example> SIZE=20
			C: RCPT TO:<b@y.example>
			C: RCPT TO:<c@y.example>
			C: DATA
			S! 250 2.1.0 ok\r\n250 2.1.5 ok\r\n250 2.1.5 ok\r\n354 go\r\n
			C. Subject: x\r\n\r\nbody\r\n
			S: 250 2.0.0 queued as 7`,
			two, short, "dot 250 2.0.0 queued as 7\ndot 250 2.0.0 queued as 7", 2, "", false},
		{"step by step", ehloNone + `
			C: MAIL FROM:<a@x.example>
			S: 250 ok
			C: RCPT TO:<b@y.example>
			S: 250 ok
			C: RCPT TO:<c@y.example>
			S: 251 will forward
			C: DATA
			S: 354 go
			C. Subject: x\r\n\r\nbody\r\n
			S: 250 ok`,
			two, short, "dot 250 ok\ndot 250 ok", 5, "", false},
		{"one recipient refused", ehloAll + `
			C: MAIL FROM:<a@x.example> SIZE=20
			C: RCPT TO:<b@y.example>
			C: RCPT TO:<c@y.example>
			C: DATA
			S! 250 ok\r\n550 5.1.1 who?\r\n250 ok\r\n354 go\r\n
			C. Subject: x\r\n\r\nbody\r\n
			S: 250 ok`,
			two, short, "rcpt 550 5.1.1 who?\ndot 250 ok", 2, "", false},
		{"all refused, 354 all the same", ehloAll + `
			C: MAIL FROM:<a@x.example> SIZE=20
			C: RCPT TO:<b@y.example>
			C: RCPT TO:<c@y.example>
			C: DATA
			S! 250 ok\r\n550 5.1.1 who?\r\n450 later\r\n354 go\r\n
			C. 
			S: 554 no valid recipients`,
			two, short, "rcpt 550 5.1.1 who?\nrcpt 450 later", 2, "", false},
		{"all refused, then a good one after RSET", ehloAll + `
			C: MAIL FROM:<a@x.example> SIZE=20
			C: RCPT TO:<b@y.example>
			C: RCPT TO:<c@y.example>
			C: DATA
			S! 250 ok\r\n550 5.1.1 who?\r\n450 later\r\n503 no recipients\r\n`,
			two, short, "rcpt 550 5.1.1 who?\nrcpt 450 later", 1, "", false},
		{"MAIL refused", ehloAll + `
			C: MAIL FROM:<a@x.example> SIZE=20
			C: RCPT TO:<b@y.example>
			C: RCPT TO:<c@y.example>
			C: DATA
			S! 550 5.7.1 not you\r\n503 x\r\n503 x\r\n503 x\r\n`,
			two, short, "mail 550 5.7.1 not you\nmail 550 5.7.1 not you", 1, "", false},
		{"MAIL refused step by step", ehloNone + `
			C: MAIL FROM:<a@x.example>
			S: 450 wait`,
			two, short, "mail 450 wait\nmail 450 wait", 1, "", false},
		{"DATA refused", ehloNone + `
			C: MAIL FROM:<a@x.example>
			S: 250 ok
			C: RCPT TO:<b@y.example>
			S: 250 ok
			C: RCPT TO:<c@y.example>
			S: 552 too many
			C: DATA
			S: 451 no`,
			two, short, "data 451 no\nrcpt 452 too many", 4, "", false},
		{"dot refused", ehloAll + `
			C: MAIL FROM:<> SIZE=20
			C: RCPT TO:<b@y.example>
			C: DATA
			S! 250 ok\r\n250 ok\r\n354 go\r\n
			C. Subject: x\r\n\r\nbody\r\n
			S! 554-5.7.1 spam\r\n554 5.7.1 go away\r\n`,
			envelope("", "b@y.example"), short, "dot 554 5.7.1 spam go away", 2, "", false},
		{"421 in the middle", ehloAll + `
			C: MAIL FROM:<a@x.example> SIZE=20
			C: RCPT TO:<b@y.example>
			C: RCPT TO:<c@y.example>
			C: DATA
			S! 250 ok\r\n550 who?\r\n421 4.3.2 going down\r\n
			X`,
			two, short, "rcpt 550 who?\nrcpt 421 4.3.2 going down", 1, "421 4.3.2 going down", true},
		{"421 and silence", ehloNone + `
			C: MAIL FROM:<a@x.example>
			S: 421 bye
			W`,
			two, short, "mail 421 bye\nmail 421 bye", 1, "421 bye", true},
		{"dropped after the dot", ehloAll + `
			C: MAIL FROM:<a@x.example> SIZE=20
			C: RCPT TO:<b@y.example>
			C: RCPT TO:<c@y.example>
			C: DATA
			S! 250 ok\r\n550 who?\r\n250 ok\r\n354 go\r\n
			C. Subject: x\r\n\r\nbody\r\n
			X`,
			two, short, "rcpt 550 who?\n 0", 2, "dot: EOF", true},
		{"half a reply after the dot", ehloAll + `
			C: MAIL FROM:<> SIZE=20
			C: RCPT TO:<b@y.example>
			C: DATA
			S! 250 ok\r\n250 ok\r\n354 go\r\n
			C. Subject: x\r\n\r\nbody\r\n
			S! 250 o
			X`,
			envelope("", "b@y.example"), short, " 0", 2, "unexpected EOF", true},
		{"354 to the dot", ehloAll + `
			C: MAIL FROM:<> SIZE=20
			C: RCPT TO:<b@y.example>
			C: DATA
			S! 250 ok\r\n250 ok\r\n354 go\r\n
			C. Subject: x\r\n\r\nbody\r\n
			S: 354 go`,
			envelope("", "b@y.example"), short, " 0", 2, "no meaning here", true},
		{"250 to DATA", ehloAll + `
			C: MAIL FROM:<> SIZE=20
			C: RCPT TO:<b@y.example>
			C: DATA
			S! 250 ok\r\n250 ok\r\n250 ok\r\n
			W`,
			envelope("", "b@y.example"), short, " 0", 1, "no meaning here", true},
		{"mixed codes", ehloAll + `
			C: MAIL FROM:<> SIZE=20
			C: RCPT TO:<b@y.example>
			C: DATA
			S! 250-ok\r\n550 no\r\n
			W`,
			envelope("", "b@y.example"), short, " 0", 1, "250 on one line and 550 on another", true},
		{"too big", ehloAll, two, strings.Repeat("x", 999) + "\r\n",
			"mail 552 5.3.4 the message has 1001 bytes; the next host takes 1000 (ours)\nmail 552 5.3.4 the message has 1001 bytes; the next host takes 1000 (ours)", 0, "", false},
		{"bare LF", ehloAll, envelope("", "b@y.example"), "a\n.\nb\r\n",
			"data 554 5.6.0 the message holds a CR or LF that is not part of a CRLF (ours)", 0, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, w := open(t, tt.script)
			results, err := send(t.Context(), c, tt.env, mail.Bytes([]byte(tt.content)))
			if (err == nil) != (tt.fails == "") || (err != nil && !strings.Contains(err.Error(), tt.fails)) {
				t.Errorf("the error is %v, want %q", err, tt.fails)
			}
			if got := told(results); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
			if c.Usable() == tt.useless {
				t.Errorf("usable: %v", c.Usable())
			}
			if n := w.writes.Load(); n != tt.writes {
				t.Errorf("%d writes, want %d", n, tt.writes)
			}
			w.finish(t)
		})
	}
}

func TestSendAgain(t *testing.T) {
	c, w := open(t, ehloAll+`
		C: MAIL FROM:<> SIZE=20
		C: RCPT TO:<b@y.example>
		C: DATA
		S! 250 ok\r\n250 ok\r\n354 go\r\n
		C. Subject: x\r\n\r\nbody\r\n
		S: 250 one
		C: MAIL FROM:<> SIZE=20
		C: RCPT TO:<b@y.example>
		C: DATA
		S! 250 ok\r\n550 no\r\n503 no\r\n
		C: RSET
		C: MAIL FROM:<> SIZE=20
		C: RCPT TO:<b@y.example>
		C: DATA
		S! 250 reset\r\n250 ok\r\n250 ok\r\n354 go\r\n
		C. Subject: x\r\n\r\nbody\r\n
		S: 250 three
		C: QUIT
		S: 221 bye`)
	for _, want := range []string{"dot 250 one", "rcpt 550 no", "dot 250 three"} {
		if !c.Alive() {
			t.Error("the connection seems dead")
		}
		results, err := send(t.Context(), c, envelope("", "b@y.example"), mail.Bytes([]byte(short)))
		if got := told(results); err != nil || got != want {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	}
	c.Quit()
	w.finish(t)
}

func TestParameters(t *testing.T) {
	env := envelope("grüße@x.example", "b@y.example", `"> NOTIFY=NEVER <z@evil"@y.example`, "päl@y.example")
	env.SMTPUTF8, env.Body, env.EnvID, env.Ret = true, mail.Body8Bit, "id=1 +x\r\nRSET", mail.RetHeaders
	env.To[0].Notify, env.To[0].Original = mail.NotifySuccess|mail.NotifyFailure, "rfc822;B b@y.example\r\nDATA"
	env.To[1].Original = "rfc822 NOTIFY=NEVER;x"
	c, w := open(t, ehloAll+`
		C: MAIL FROM:<grüße@x.example> SIZE=20 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=id+3D1+20+2Bx+0D+0ARSET
		C: RCPT TO:<b@y.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;B+20b@y.example+0D+0ADATA
		C: RCPT TO:<"> NOTIFY=NEVER <z@evil"@y.example>
		C: RCPT TO:<päl@y.example>
		C: DATA
		S! 250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n
		C. Subject: x\r\n\r\nbody\r\n
		S: 250 ok`)
	if results, err := send(t.Context(), c, env, mail.Bytes([]byte(short))); err != nil {
		t.Error(told(results), err)
	}
	w.finish(t)
}

// TestPriority: it is said to a peer that knows it, and a message without one says nothing.
func TestPriority(t *testing.T) {
	for priority, want := range map[int8]string{0: "", -4: " MT-PRIORITY=-4", 9: " MT-PRIORITY=9"} {
		for _, offer := range []string{"250 MT-PRIORITY", "250 HELP"} {
			if offer == "250 HELP" {
				want = ""
			}
			c, w := open(t, "C: EHLO me.example\nS! 250-mx.example\\r\\n"+offer+"\\r\\n\nC: MAIL FROM:<>"+want+
				"\nS: 250 ok\nC: RCPT TO:<b@y.example>\nS: 250 ok\nC: DATA\nS: 354 go\nC. Subject: x\\r\\n\\r\\nbody\\r\\n\nS: 250 ok")
			env := envelope("", "b@y.example")
			env.Priority = priority
			if results, err := send(t.Context(), c, env, mail.Bytes([]byte(short))); err != nil {
				t.Error(told(results), err)
			}
			w.finish(t)
		}
	}
}

// What the peer can't take is refused by us, and recipients that it can take are served.
func TestObstacles(t *testing.T) {
	eight, binary, wideFrom, tlsOnly := envelope("", "b@y.example"), envelope("", "b@y.example"), envelope("ä@x.example", "b@y.example"), envelope("", "b@y.example")
	eight.Body, binary.Body, wideFrom.SMTPUTF8, tlsOnly.RequireTLS = mail.Body8Bit, mail.BodyBinary, true, true
	wideHeader := envelope("", "b@y.example")
	wideHeader.SMTPUTF8 = true
	for _, tt := range []struct {
		name, content string
		env           *mail.Envelope
		want          string
	}{
		{"8-bit", short, eight, "mail 554 5.6.3"},
		{"binary", short, binary, "mail 554 5.6.3"},
		{"wide sender", short, wideFrom, "mail 553 5.6.7"},
		{"wide header", "Subject: ä\r\n\r\n", wideHeader, "mail 553 5.6.7"},
		{"wide recipient", short, envelope("", "ä@y.example"), "rcpt 553 5.6.7"},
		{"REQUIRETLS", short, tlsOnly, "mail 550 5.7.30"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, w := open(t, ehloNone)
			results, err := send(t.Context(), c, tt.env, mail.Bytes([]byte(tt.content)))
			if got := told(results); err != nil || !strings.HasPrefix(got, tt.want) || !results[0].Ours {
				t.Errorf("got %q, %v", got, err)
			}
			w.finish(t)
		})
	}
	t.Run("one of two", func(t *testing.T) {
		c, w := open(t, ehloNone+"C: MAIL FROM:<>\nS: 250 ok\nC: RCPT TO:<b@y.example>\nS: 250 ok\nC: DATA\nS: 354 go\nC. Subject: x\\r\\n\\r\\nbody\\r\\n\nS: 250 ok")
		env := envelope("", "ä@y.example", "b@y.example")
		env.SMTPUTF8 = true
		results, err := send(t.Context(), c, env, mail.Bytes([]byte(short)))
		if got := told(results); err != nil || !strings.HasSuffix(got, "\ndot 250 ok") || !strings.HasPrefix(got, "rcpt 553 5.6.7") {
			t.Errorf("got %q, %v", got, err)
		}
		w.finish(t)
	})
}

func TestBinary(t *testing.T) {
	env := envelope("", "b@y.example", "c@y.example")
	env.Body = mail.BodyBinary
	script := ehloAll + `
		C: MAIL FROM:<> SIZE=9 BODY=BINARYMIME
		C: RCPT TO:<b@y.example>
		C: RCPT TO:<c@y.example>
		`
	t.Run("sent", func(t *testing.T) {
		c, w := open(t, script+`S! 250 ok\r\n550 no\r\n250 ok\r\n
			C: BDAT 9 LAST
			C# 9 a\n.\r\r\n\x00\n.
			S: 250 ok`)
		results, err := send(t.Context(), c, env, mail.Bytes([]byte("a\n.\r\r\n\x00\n.")))
		if got := told(results); err != nil || got != "rcpt 550 no\ndot 250 ok" {
			t.Errorf("got %q, %v", got, err)
		}
		w.finish(t)
	})
	t.Run("no chunk without a recipient", func(t *testing.T) {
		c, w := open(t, script+`S! 250 ok\r\n550 no\r\n550 no\r\n
			W`)
		if _, err := send(t.Context(), c, env, mail.Bytes([]byte("a\n.\r\r\n\x00\n."))); err != nil || !c.Usable() {
			t.Error(err)
		}
		w.finish(t)
	})
}

func TestLMTP(t *testing.T) {
	lhlo := "C: LHLO me.example\nS! 250-x\\r\\n250 PIPELINING\\r\\n\n"
	env := envelope("", "a@y.example", "b@y.example", "c@y.example")
	c, w := openWith(t, Options{LMTP: true}, dialogue(t, "S: 220 lmtp\n"+lhlo+`
		C: MAIL FROM:<>
		C: RCPT TO:<a@y.example>
		C: RCPT TO:<b@y.example>
		C: RCPT TO:<c@y.example>
		C: DATA
		S! 250 ok\r\n250 ok\r\n550 who?\r\n250 ok\r\n354 go\r\n
		C. Subject: x\r\n\r\nbody\r\n
		S! 250 stored\r\n452 4.2.2 full\r\n
		C: MAIL FROM:<>
		C: RCPT TO:<a@y.example>
		C: RCPT TO:<b@y.example>
		C: RCPT TO:<c@y.example>
		C: DATA
		S! 250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n
		C. Subject: x\r\n\r\nbody\r\n
		S! 250 stored\r\n421 bye\r\n
		X`))
	results, err := send(t.Context(), c, env, mail.Bytes([]byte(short)))
	if got := told(results); err != nil || got != "dot 250 stored\nrcpt 550 who?\ndot 452 4.2.2 full" {
		t.Errorf("got %q, %v", got, err)
	}
	results, err = send(t.Context(), c, env, mail.Bytes([]byte(short)))
	if got := told(results); err == nil || got != "dot 250 stored\ndot 421 bye\ndot 421 bye" {
		t.Errorf("got %q, %v", got, err)
	}
	w.finish(t)
}

// Nobody would answer to the dot of a message without recipients (RFC 2033, 4.2), so the connection is given up instead.
func TestLMTPWithoutRecipients(t *testing.T) {
	c, w := openWith(t, Options{LMTP: true}, dialogue(t, `S: 220 lmtp
		C: LHLO me.example
		S! 250-x\r\n250 PIPELINING\r\n
		C: MAIL FROM:<>
		C: RCPT TO:<a@y.example>
		C: DATA
		S! 250 ok\r\n550 who?\r\n354 go\r\n
		W`))
	results, err := send(t.Context(), c, envelope("", "a@y.example"), mail.Bytes([]byte(short)))
	if got := told(results); err != nil || got != "rcpt 550 who?" || c.Usable() {
		t.Errorf("got %q, %v", got, err)
	}
	w.finish(t)
}

// A thousand recipients go out in flights of at most a hundred commands.
func TestManyRecipients(t *testing.T) {
	const n = 1000
	var script strings.Builder
	env := &mail.Envelope{}
	commands := []string{"MAIL FROM:<> SIZE=20"}
	for i := range n {
		env.To = append(env.To, mail.Recipient{Address: mail.MustParseAddress(fmt.Sprintf("u%d@y.example", i))})
		commands = append(commands, fmt.Sprintf("RCPT TO:<u%d@y.example>", i))
	}
	commands = append(commands, "DATA")
	waiting := ""
	for i, command := range commands {
		script.WriteString("C: " + command + "\n")
		if waiting += `250 ok\r\n`; command == "DATA" {
			waiting = strings.TrimSuffix(waiting, `250 ok\r\n`) + `354 go\r\n`
		}
		if (i+1)%maxGroup == 0 || command == "DATA" {
			script.WriteString("S! " + waiting + "\n")
			waiting = ""
		}
	}
	c, w := open(t, ehloAll+script.String()+"C. Subject: x\\r\\n\\r\\nbody\\r\\n\nS: 250 ok")
	results, err := send(t.Context(), c, env, mail.Bytes([]byte(short)))
	if err != nil || results[n-1].Reply.Code != 250 || w.writes.Load() != n/maxGroup+2 {
		t.Errorf("%v, %d writes, %v", results[n-1], w.writes.Load(), err)
	}
	w.finish(t)
}

func TestHello(t *testing.T) {
	for _, tt := range []struct{ name, script, fails string }{
		{"HELO", "S: 220 hi\nC: EHLO me.example\nS: 502 what?\nC: HELO me.example\nS: 250 ok", ""},
		{"refused", "S: 220 hi\nC: EHLO me.example\nS: 550 no\nC: HELO me.example\nS: 550 5.7.1 go", "helo: 550 5.7.1 go"},
		{"refused for now", "S: 220 hi\nC: EHLO me.example\nS: 450 wait", "helo: 450 wait"},
		{"greeting 554", "S: 554 5.7.1 blocked", "connect: 554 5.7.1 blocked"},
		{"greeting 421", "S: 421 busy\nX", "connect: 421 busy"},
		{"greeting 354", "S: 354 x", "no meaning here"},
		{"no greeting", "X", "connect: EOF"},
		{"not SMTP", "S: SSH-2.0-OpenSSH_9", "does not speak SMTP"},
		{"lines that are no keywords", `S: 220 hi
			C: EHLO me.example
			S! 250-x\r\n250-\r\n250- \r\n250-8BITMIME\r\n250\r\n`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := dialogue(t, tt.script)
			c := New(w, Options{Hostname: "me.example"})
			err := c.Greet(t.Context())
			if err == nil {
				err = c.Hello(t.Context())
			}
			if (err == nil) != (tt.fails == "") || (err != nil && !strings.Contains(err.Error(), tt.fails)) {
				t.Errorf("got %v, want %q", err, tt.fails)
			}
			w.finish(t)
		})
	}
	c := New(dialogue(t, ""), Options{Hostname: "me\r\nRSET"})
	if err := c.Hello(t.Context()); err == nil || !strings.Contains(err.Error(), "can't be said") {
		t.Error(err)
	}
}

// local gives a wire a loopback address.
type local struct{ *wire }

func (local) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

func TestAuth(t *testing.T) {
	for _, tt := range []struct{ name, offered, script, fails string }{
		{"PLAIN", "LOGIN PLAIN", "C: AUTH PLAIN AHUAcA==\nS: 235 ok", ""},
		{"LOGIN", "CRAM-MD5 LOGIN", "C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: dQ==\nS: 334 UGFzc3dvcmQ6\nC: cA==\nS: 235 ok", ""},
		{"wrong", "PLAIN", "C: AUTH PLAIN AHUAcA==\nS: 535 5.7.8 wrong", "535 5.7.8 wrong"},
		{"refused at once", "LOGIN", "C: AUTH LOGIN\nS: 454 later", "454 later"},
		{"never done", "LOGIN", "C: AUTH LOGIN\nS: 334 a\nC: dQ==\nS: 334 a\nC: cA==\nS: 334 a", "no meaning here"},
		{"nothing in common", "GSSAPI", "", "neither AUTH PLAIN nor AUTH LOGIN"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := dialogue(t, "S: 220 x\nC: EHLO me.example\nS! 250-x\\r\\n250 AUTH "+tt.offered+"\\r\\n\n"+tt.script)
			c := New(local{w}, Options{Hostname: "me.example"})
			if err := errors.Join(c.Greet(t.Context()), c.Hello(t.Context())); err != nil {
				t.Fatal(err)
			}
			err := c.Auth(t.Context(), "u", "p", true)
			if (err == nil) != (tt.fails == "") || (err != nil && !strings.Contains(err.Error(), tt.fails)) {
				t.Errorf("got %v, want %q", err, tt.fails)
			}
			if strings.Contains(fmt.Sprint(err), "AHUAcA") {
				t.Error("the error holds the password")
			}
			w.finish(t)
		})
	}
}

// damaged is content that can't be read beyond its first block.
type damaged struct{ mail.Content }

func (d damaged) ReadAt(b []byte, at int64) (int, error) {
	if at > 0 {
		return 0, errors.New("checksum /var/lib/mta")
	}
	return d.Content.ReadAt(b, at)
}
