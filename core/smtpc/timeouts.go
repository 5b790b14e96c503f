package smtpc

import "time"

// Timeouts bounds each wait, and says what is soon. Zero values mean the defaults of RFC 5321, 4.5.3.2.
type Timeouts struct {
	Greeting time.Duration // the 220 to come, default 5m
	Command  time.Duration // EHLO, MAIL, RCPT, AUTH, RSET to be answered, default 5m
	TLS      time.Duration // STARTTLS and its handshake, default 1m
	Data     time.Duration // DATA to be answered, default 2m
	Block    time.Duration // one block of at most 64 KiB to be taken, default 3m
	Dot      time.Duration // the final dot to be answered, default 10m
	Quit     time.Duration // QUIT to be answered, default 2s

	// Prompt bounds no wait. A peer that answers a final dot sooner gets the next transaction begun behind the next dot; behind
	// one that takes its time it would wait, though it might go over another connection meanwhile. Default 1s.
	Prompt time.Duration
}

func (t Timeouts) withDefaults() Timeouts {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&t.Greeting, 5*time.Minute)
	set(&t.Command, 5*time.Minute)
	set(&t.TLS, time.Minute)
	set(&t.Data, 2*time.Minute)
	set(&t.Block, 3*time.Minute)
	set(&t.Dot, 10*time.Minute)
	set(&t.Quit, 2*time.Second)
	set(&t.Prompt, time.Second)
	return t
}
