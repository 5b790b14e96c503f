package smtpc

import "time"

// Timeouts bounds each wait. Zero values mean the defaults of RFC 5321, 4.5.3.2.
type Timeouts struct {
	Greeting time.Duration // the 220 to come, default 5m
	Command  time.Duration // EHLO, MAIL, RCPT, AUTH, RSET to be answered, default 5m
	TLS      time.Duration // STARTTLS and its handshake, default 1m
	Data     time.Duration // DATA to be answered, default 2m
	Block    time.Duration // one block of at most 64 KiB to be taken, default 3m
	Dot      time.Duration // the final dot to be answered, default 10m
	Quit     time.Duration // QUIT to be answered, default 2s
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
	return t
}
