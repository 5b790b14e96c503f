package retry

import (
	"testing"
	"time"
)

const day = 24 * time.Hour

func TestNext(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	one := Policy{Delays: []time.Duration{time.Minute, time.Hour}}
	for _, tt := range []struct {
		name    string
		p       Policy
		attempt int
		rnd     float64
		want    time.Duration
	}{
		{"the first delay", Policy{}, 1, 0.5, 5 * time.Minute},
		{"the second", Policy{}, 2, 0.5, 15 * time.Minute},
		{"the third", Policy{}, 3, 0.5, 30 * time.Minute},
		{"the last for ever", Policy{}, 4, 0.5, 30 * time.Minute},
		{"and ever", Policy{}, 1 << 40, 0.5, 30 * time.Minute},
		{"no attempt counts as one", Policy{}, 0, 0.5, 5 * time.Minute},
		{"nor does a negative one", Policy{}, -1 << 40, 0.5, 5 * time.Minute},
		{"own delays", one, 1, 0.5, time.Minute},
		{"the last of them", one, 9, 0.5, time.Hour},
		{"without jitter the random number is nothing", one, 2, 0.99, time.Hour},
		{"least jitter", Policy{Jitter: 0.1}, 3, 0, 27 * time.Minute},
		{"no jitter in the middle", Policy{Jitter: 0.1}, 3, 0.5, 30 * time.Minute},
		{"a quarter", Policy{Jitter: 0.1}, 3, 0.75, 31*time.Minute + 30*time.Second},
		{"more jitter than all of it", Policy{Jitter: 7}, 3, 0, time.Second},
		{"less than none", Policy{Jitter: -7}, 3, 0, 30 * time.Minute},
		{"never at once", Policy{Delays: []time.Duration{0}}, 1, 0.5, time.Second},
		{"never in the past", Policy{Delays: []time.Duration{-time.Hour}}, 1, 0.5, time.Second},
	} {
		if got := tt.p.Next(tt.attempt, now, tt.rnd); !got.Equal(now.Add(tt.want)) {
			t.Errorf("%s: %v, want %v", tt.name, got.Sub(now), tt.want)
		}
	}
}

func TestNextStaysWithinTheJitter(t *testing.T) {
	p := Policy{Jitter: 0.25}
	now := time.Now()
	for i := range 1000 {
		d := p.Next(3, now, float64(i)/1000).Sub(now)
		if d < 30*time.Minute*3/4 || d >= 30*time.Minute*5/4 {
			t.Fatalf("rnd %d/1000: %v", i, d)
		}
	}
}

func TestExpiredAndWarnDue(t *testing.T) {
	for _, tt := range []struct {
		name          string
		p             Policy
		age           time.Duration
		warned        bool
		expired, warn bool
	}{
		{"new", Policy{}, 0, false, false, false},
		{"just before the warning", Policy{}, 4*time.Hour - 1, false, false, false},
		{"the warning", Policy{}, 4 * time.Hour, false, false, true},
		{"warned already", Policy{}, 5 * time.Hour, true, false, false},
		{"just before the end", Policy{}, 5*day - 1, false, false, true},
		{"the end", Policy{}, 5 * day, false, true, false},
		{"own times", Policy{WarnAfter: time.Minute, Expire: time.Hour}, time.Minute, false, false, true},
		{"own end", Policy{WarnAfter: time.Minute, Expire: time.Hour}, time.Hour, false, true, false},
		{"no warning at all", Policy{WarnAfter: -1}, 4 * day, false, false, false},
		{"a warning after the end never comes", Policy{WarnAfter: 6 * day}, 7 * day, false, true, false},
	} {
		if got := tt.p.Expired(tt.age); got != tt.expired {
			t.Errorf("%s: expired %v", tt.name, got)
		}
		if got := tt.p.WarnDue(tt.age, tt.warned); got != tt.warn {
			t.Errorf("%s: warn %v", tt.name, got)
		}
	}
}

// TestFiveDays walks the whole life of a message that nobody takes.
func TestFiveDays(t *testing.T) {
	p := Policy{}
	received := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	now, attempts, warnings := received, 0, 0
	for !p.Expired(now.Sub(received)) {
		attempts++
		if p.WarnDue(now.Sub(received), warnings > 0) {
			warnings++
		}
		now = p.Next(attempts, now, 0.5)
	}
	// 5 and 15 minutes, and then every 30 minutes until 120 hours are full.
	if attempts != 242 || warnings != 1 {
		t.Errorf("%d attempts and %d warnings", attempts, warnings)
	}
}

// TestTellAge: the first age at which WarnDue or Expired says yes.
func TestTellAge(t *testing.T) {
	for _, p := range []Policy{{}, {WarnAfter: -1}, {WarnAfter: time.Minute, Expire: time.Hour}, {WarnAfter: time.Hour, Expire: time.Minute}} {
		for _, warned := range []bool{false, true} {
			at := p.TellAge(warned)
			says := func(age time.Duration) bool { return p.Expired(age) || p.WarnDue(age, warned) }
			if !says(at) || says(at-1) {
				t.Errorf("%+v, warned %t: told after %s", p, warned, at)
			}
		}
	}
}

func TestLatest(t *testing.T) {
	now := time.Date(2026, 3, 29, 0, 30, 0, 0, time.UTC)
	for want, p := range map[time.Duration]Policy{
		30 * time.Minute: {},
		33 * time.Minute: {Jitter: 0.1},
		2 * time.Hour:    {Delays: []time.Duration{time.Minute, 2 * time.Hour, time.Second, time.Hour}},
	} {
		if got := p.Latest(now).Sub(now); got != want {
			t.Errorf("%+v: %s, want %s", p, got, want)
		}
	}
}
