// Package retry says when a message is tried again, when its sender is told of the delay, and when it is given up.
//
// It is arithmetic: it reads no clock, keeps no state and cannot fail. A policy with nothing in it is usable:
// the zero values stand for the delays of RFC 5321, 4.5.4.1.
package retry

import "time"

// Policy is when to try again. A zero field takes its default.
type Policy struct {
	Delays    []time.Duration // after the first failed attempt, the second, …; the last for ever after; default 5m, 15m, 30m
	Jitter    float64         // each delay is changed by up to this share of it, 0 to 1, so that what failed together is not tried together
	WarnAfter time.Duration   // the sender is told after so long; negative: never; default 4h
	Expire    time.Duration   // given up after so long; default 5 days
}

const (
	defaultWarnAfter = 4 * time.Hour
	defaultExpire    = 5 * 24 * time.Hour // RFC 5321, 4.5.4.1: at least 4 to 5 days
)

// Next returns when to try again after the attempt-th failed attempt, counted from 1. rnd is the caller's random number
// in [0, 1); 0.5 is no jitter at all.
func (p Policy) Next(attempt int, now time.Time, rnd float64) time.Time {
	d := p.delay(attempt)
	jitter := min(max(p.Jitter, 0), 1)
	d += time.Duration(float64(d) * jitter * (2*rnd - 1))
	return now.Add(max(d, time.Second))
}

// Latest returns the last moment at which Next may have a message tried again that was tried now.
func (p Policy) Latest(now time.Time) time.Time {
	latest := now
	for attempt := range max(len(p.Delays), 3) { // three where nothing is set
		if t := p.Next(attempt+1, now, 1); t.After(latest) {
			latest = t
		}
	}
	return latest
}

// delay returns the delay after an attempt, without jitter.
func (p Policy) delay(attempt int) time.Duration {
	delays := p.Delays
	if len(delays) == 0 {
		// About every 30 minutes, the first tries sooner (RFC 5321, 4.5.4.1).
		delays = []time.Duration{5 * time.Minute, 15 * time.Minute, 30 * time.Minute}
	}
	return delays[min(max(attempt, 1), len(delays))-1]
}

// Expired reports whether a message is old enough to be given up.
func (p Policy) Expired(age time.Duration) bool { return age >= p.Patience() }

// Patience returns the age at which a message is given up.
func (p Policy) Patience() time.Duration { return orDefault(p.Expire, defaultExpire) }

// WarnDue reports whether the sender is to be told now that the message is late. A message is told of once, and no more
// when it is given up anyway.
func (p Policy) WarnDue(age time.Duration, warned bool) bool {
	if warned || p.WarnAfter < 0 || p.Expired(age) {
		return false
	}
	return age >= orDefault(p.WarnAfter, defaultWarnAfter)
}

// TellAge returns the age at which the sender is to be told something the next time: of the delay, or that the message is
// given up.
func (p Policy) TellAge(warned bool) time.Duration {
	if !warned && p.WarnAfter >= 0 {
		return min(p.Patience(), orDefault(p.WarnAfter, defaultWarnAfter))
	}
	return p.Patience()
}

func orDefault(d, fallback time.Duration) time.Duration {
	if d == 0 {
		return fallback
	}
	return d
}
