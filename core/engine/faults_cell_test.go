package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// cell is one field of the matrix.
type cell struct {
	*faultRig
	fault, moment string

	err     error
	timing  bool          // err is about a figure, or about something that a busy machine may bring about
	died    bool          // the plugin lost a process
	restart time.Duration // from its death, or the end of the fault if that was later, to the first good answer
	seen    []time.Duration
}

func (c *cell) name() string { return c.fault + ", " + c.moment + ", " + c.kind }

func (c *cell) file() string { return filepath.Join(c.dir, c.fault, "fault") }

// words are what the table says: how long the plugin was away after its death, and the 99th percentile of others.
func (c *cell) words(again error) string {
	words := "ok"
	switch {
	case c.err != nil:
		words = "FAILED"
	case again != nil:
		words = "ok, 2nd"
	}
	if c.died {
		words += fmt.Sprintf(" %.1fs", c.restart.Seconds())
	} else {
		words += " –"
	}
	if *allFaults {
		words += fmt.Sprintf(" %vms", percentile(c.seen, 99).Milliseconds())
	}
	return words
}

// able reports that the plugin can answer in spite of the fault; must, that it can't.
func (c *cell) able() bool { return c.fault == "handshake" && c.moment != "start" }

func (c *cell) must() bool {
	return !c.able() && (c.moment != "idle" || c.fault == "slow" || c.fault == "stop")
}

// variants are how many forms a fault has at its moment; each is seen once.
func (c *cell) variants() int {
	if c.fault == "hostile" && c.moment == "call" {
		return len(values)
	}
	return 1
}

// run makes the fault happen and judges what came of it.
func (c *cell) run() {
	c.err, c.timing = nil, false
	c.others.wanted.Add(1)
	defer c.others.wanted.Add(-1)
	defer os.Remove(c.file())
	if _, err := c.back(); err != nil {
		c.err = fmt.Errorf("before the fault: %w", err)
		return
	}
	began := time.Now()
	few := func() bool { return *allFaults && len(c.since(began)) < enough && time.Since(began) < longest }
	for n := 0; n < c.variants() || few(); n++ {
		if c.err = c.suffer(n); c.err != nil {
			return
		}
	}
	_ = os.Remove(c.file())
	end := time.Now()
	at, err := c.back()
	if err != nil {
		c.err = fmt.Errorf("after the fault: %w", err)
		return
	}
	death, died := c.lives.lastDeath(c.fault, began)
	if c.died = died; death.Before(end) {
		death = end
	}
	c.restart, c.seen = at.Sub(death), c.since(began)
	if *allFaults {
		c.err = c.judgeFigures(c.beside.since(began))
	}
}

func (c *cell) judgeFigures(beside []time.Duration) error {
	c.timing = true
	if c.died && c.restart > restartBound {
		return fmt.Errorf("it took the plugin %v to come back", c.restart)
	}
	return c.judgeOthers(c.seen, beside)
}

// suffer makes the fault come, in one of its forms, and asks the plugin then.
func (c *cell) suffer(n int) error {
	before := c.status(c.fault)
	if _, err := os.Stat(c.file()); err != nil || c.variants() > 1 {
		if n > 0 && c.moment != "call" {
			if _, err := c.back(); err != nil {
				return fmt.Errorf("between two faults: %w", err)
			}
			before = c.status(c.fault)
		}
		if err := c.order(n); err != nil {
			return err
		}
		if err := c.provoke(before.PID, before.Restarts); err != nil {
			return err
		}
	}
	err := c.probe()
	if c.able() {
		_, err = c.back() // while the fault lasts
	}
	if err != nil && c.variants() > 1 {
		err = fmt.Errorf("%s: %w", values[n%len(values)], err)
	}
	if err == nil {
		err = c.printable()
	}
	return err
}

// order tells the plugin what to do, in one piece: it may look at any moment.
func (c *cell) order(n int) error {
	next := c.file() + ".new"
	if err := os.WriteFile(next, fmt.Appendf(nil, "%s %s %d", c.moment, c.fault, n), 0o600); err != nil {
		return err
	}
	return os.Rename(next, c.file())
}

// provoke makes the moment come, and waits for the fault where it comes by itself.
func (c *cell) provoke(pid, restarts int) error {
	switch {
	case c.moment == "start":
		return syscall.Kill(pid, syscall.SIGKILL)
	case c.moment == "call" || c.able() || c.fault == "slow":
		return nil
	case c.fault == "stop":
		if !until(func() bool { return stopped(pid) || c.status(c.fault).Restarts > restarts }) {
			return errors.New("the plugin did not stop")
		}
	case !until(func() bool { return c.status(c.fault).Restarts > restarts }):
		return errors.New("the server did not see it")
	}
	return nil
}

func stopped(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), ") T ")
}

// printable wants nothing that a plugin says of itself to reach an operator as it is.
func (c *cell) printable() error {
	s := c.status(c.fault)
	for _, text := range append(s.Kinds, s.Program, s.Version, s.Error) {
		if strings.ContainsAny(text, "\r\x00\x1b") || len(text) > 100<<10 {
			return fmt.Errorf("the status holds %.200q", text)
		}
	}
	return nil
}

// back waits until the plugin works, and returns when it began to answer.
func (c *cell) back() (at time.Time, err error) {
	if until(func() bool {
		at, err = c.good()
		return err == nil
	}) {
		return at, nil
	}
	return at, fmt.Errorf("the plugin did not come back: %w; %+v", err, c.status(c.fault))
}

// judge compares what came of a probe with what has to.
func (c *cell) judge(what, reply string, good, kept bool) error {
	switch {
	case good && !c.must(), kept:
		return nil
	}
	return fmt.Errorf("%s: %s", what, reply)
}

// probe asks the plugin in its fault, and wants the policy of its kind.
func (c *cell) probe() error {
	switch c.kind {
	case "authenticator":
		return c.probeLogin()
	case "filter":
		return c.probeFilter()
	case "bounce":
		return c.probeReport()
	default:
		return c.probeDelivery()
	}
}

// good returns when the plugin answered, and an error unless it does its work.
func (c *cell) good() (at time.Time, err error) {
	switch c.kind {
	case "authenticator":
		return c.goodLogin()
	case "filter":
		return c.goodFilter()
	case "bounce":
		return c.goodReport()
	default:
		return c.goodDelivery()
	}
}
