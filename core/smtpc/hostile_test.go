package smtpc

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

func TestInjectionBeforeHandshake(t *testing.T) {
	c, w := open(t, "C: EHLO me.example\nS! 250-x\\r\\n250 starttls\\r\\n\nC: STARTTLS\nS! 220 go\\r\\n250-AUTH PLAIN\\r\\n\nW")
	if !c.Caps().StartTLS {
		t.Error("starttls in small letters was not seen")
	}
	err := c.StartTLS(t.Context(), &tls.Config{InsecureSkipVerify: true})
	if !errors.Is(err, errInjected) || c.Usable() {
		t.Error(err)
	}
	w.finish(t)
}

func TestStartTLSRefused(t *testing.T) {
	c, w := open(t, "C: EHLO me.example\nS! 250-x\\r\\n250 STARTTLS\\r\\n\nC: STARTTLS\nS: 454 4.7.0 not now")
	var e *Error
	if err := c.StartTLS(t.Context(), &tls.Config{}); !errors.As(err, &e) || e.Reply.Code != 454 || !c.Usable() {
		t.Error(err)
	}
	w.finish(t)
}

// net.Pipe's ends are no loopback addresses, and there is no TLS: the password stays here.
func TestNoPasswordInTheClear(t *testing.T) {
	for _, insecure := range []bool{false, true} {
		c, w := open(t, "C: EHLO me.example\nS! 250-x\\r\\n250 AUTH PLAIN\\r\\n\nW")
		if err := c.Auth(t.Context(), "u", "p", insecure); err == nil || !strings.Contains(err.Error(), "not sent") {
			t.Error(err)
		}
		w.finish(t)
	}
}

// Each wait ends, in virtual time, however the peer stalls.
func TestStalls(t *testing.T) {
	for _, tt := range []struct {
		name string
		peer func(net.Conn) // does its worst
		wait time.Duration
	}{
		{"says nothing", func(net.Conn) {}, 5 * time.Minute},
		{"a byte a minute", func(p net.Conn) {
			for _, err := p.Write([]byte("2")); err == nil; _, err = p.Write([]byte("2")) {
				time.Sleep(time.Minute)
			}
		}, 5 * time.Minute},
		{"a line a minute", func(p net.Conn) {
			for _, err := p.Write([]byte("220-x\r\n")); err == nil; _, err = p.Write([]byte("220-x\r\n")) {
				time.Sleep(time.Minute)
			}
		}, 5 * time.Minute},
		{"never reads EHLO", func(p net.Conn) { p.Write([]byte("220 x\r\n")) }, 3 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := net.Pipe()
				go tt.peer(server)
				c := New(client, Options{Hostname: "me.example"})
				start := time.Now()
				err := c.Greet(t.Context())
				if err == nil {
					err = c.Hello(t.Context())
				}
				var timeout *TimeoutError
				if !errors.As(err, &timeout) || time.Since(start) != tt.wait || timeout.Wait != tt.wait {
					t.Errorf("%v after %v", err, time.Since(start))
				}
				c.Close()
				server.Close()
				time.Sleep(time.Hour) // the peer ends
			})
		})
	}
}

// A peer that stops taking the content is given up after a block's time, and a context that ends stops everything at once.
func TestStalledContent(t *testing.T) {
	script := ehloNone + "C: MAIL FROM:<>\nS: 250 ok\nC: RCPT TO:<b@y.example>\nS: 250 ok\nC: DATA\nS: 354 go\nC# 9 xxxxxxxxx\nH"
	for _, wait := range []time.Duration{0, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			c, _ := open(t, script)
			ctx, want, after := t.Context(), "no answer within 3m0s", 3*time.Minute
			if wait > 0 {
				c2, stop := context.WithCancelCause(ctx)
				time.AfterFunc(wait, func() { stop(errors.New("stopping")) })
				ctx, want, after = c2, "data: stopping", wait
			}
			start := time.Now()
			// The script's reader takes a megabyte before it stops.
			results, err := send(ctx, c, envelope("", "b@y.example"), mail.Bytes([]byte(strings.Repeat("x", 2<<20))))
			if err == nil || !strings.Contains(err.Error(), want) || c.Usable() || results[0].Reply.Code != 0 {
				t.Errorf("got %v, %s", err, told(results))
			}
			// What the peer may have said last is waited for as well.
			if took := time.Since(start); took < after || took > after+3*time.Second {
				t.Errorf("it took %v", took)
			}
			c.Close()
		})
	}
}

// What a peer says before it closes in the middle of the content is its answer.
func TestLastWords(t *testing.T) {
	c, w := openTCP(t, ehloNone+"C: MAIL FROM:<>\nS: 250 ok\nC: RCPT TO:<b@y.example>\nS: 250 ok\nC: DATA\nS: 354 go\nC# 3 xxx\nS: 552 5.3.4 too big\nX")
	results, err := send(t.Context(), c, envelope("", "b@y.example"), mail.Bytes([]byte(strings.Repeat("x", 4<<20))))
	if got := told(results); err == nil || got != "data 552 5.3.4 too big" || c.Usable() {
		t.Errorf("got %q, %v", got, err)
	}
	w.finish(t)
}

// Trouble that shows only in a later block leaves the peer without the final dot.
func TestBrokenOffContent(t *testing.T) {
	good := strings.Repeat(strings.Repeat("x", 62)+"\r\n", 2048)
	for _, tt := range []struct {
		name    string
		content mail.Content
		want    string
	}{
		{"damaged", damaged{mail.Bytes([]byte(good))}, "data 451 4.3.0 the message can't be read from the queue (ours)"},
		{"bare LF", mail.Bytes([]byte(good + "\n.\n")), "data 554 5.6.0 the message holds a CR or LF that is not part of a CRLF (ours)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, w := open(t, ehloNone+"C: MAIL FROM:<>\nS: 250 ok\nC: RCPT TO:<b@y.example>\nS: 250 ok\nC: DATA\nS: 354 go\nE")
			results, err := send(t.Context(), c, envelope("", "b@y.example"), tt.content)
			if got := told(results); err == nil || got != tt.want || c.Usable() {
				t.Errorf("got %q, %v", got, err)
			}
			w.finish(t)
		})
	}
}

func TestAlive(t *testing.T) {
	for _, tt := range []struct{ name, script string }{
		{"closed", "X"},
		{"said goodbye", "S: 421 4.4.2 idle for too long\nX"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, w := openTCP(t, ehloNone+tt.script)
			for c.Alive() { // the script may not be there yet
			}
			w.finish(t)
		})
	}
	c, _ := openTCP(t, ehloNone+"H")
	if !c.Alive() {
		t.Error("a good connection seems dead")
	}
	c.Close()
	if c.Alive() {
		t.Error("a closed connection seems alive")
	}
}

// A peer that closed while nobody looked has answered nothing.
func TestUnanswered(t *testing.T) {
	for _, script := range []string{"X", "S: 421 idle\nX", "C: MAIL FROM:<>\nX", "C: MAIL FROM:<>\nS: 421 idle\nX"} {
		c, w := openTCP(t, ehloNone+script)
		results, err := send(t.Context(), c, envelope("", "b@y.example"), mail.Bytes([]byte(short)))
		var e *Error
		if !errors.As(err, &e) || !e.Unanswered {
			t.Errorf("%q: got %s, %v", script, told(results), err)
		}
		w.finish(t)
	}
}
