package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pabal-mta/mta/core/event"
)

// probeLogin wants 454 from an authenticator that can't answer, and never that a wrong password is taken.
func (c *cell) probeLogin() error {
	s := c.session(c.fault)
	defer s.close()
	if code := s.login("wrong"); code == 235 {
		return fmt.Errorf("a wrong password was taken: %s", s.last)
	}
	s = c.session(c.fault)
	defer s.close()
	code := s.login("right")
	return c.judge("the right password", s.String(), code == 235, code == 454)
}

func (c *cell) goodLogin() error {
	s := c.session(c.fault)
	defer s.close()
	if code := s.login("wrong"); code != 535 {
		return fmt.Errorf("a wrong password: %s", s)
	}
	if code := s.login("right"); code != 235 {
		return fmt.Errorf("the right password: %s", s)
	}
	return nil
}

// probeFilter wants 4xx where the filter can't answer: on_error is tempfail.
func (c *cell) probeFilter() error {
	s := c.session(c.fault)
	defer s.close()
	_, _, code := c.send(s, "bob@else.example", "ann@here.example", 100)
	return c.judge("a recipient", s.String(), code == 250, code/100 == 4)
}

func (c *cell) goodFilter() error {
	s := c.session(c.fault)
	defer s.close()
	s.say("MAIL FROM:<bob@else.example>")
	if code := s.say("RCPT TO:<refused@here.example>"); code != 550 {
		return fmt.Errorf("a recipient that the filter refuses: %s", s)
	}
	if code := s.say("RCPT TO:<ann@here.example>"); code != 250 {
		return fmt.Errorf("a recipient: %s", s)
	}
	return nil
}

// probeDelivery wants the message to stay in the queue where the store or the converter can't do its work.
func (c *cell) probeDelivery() error {
	e, _, err := c.deliver()
	if err != nil {
		return err
	}
	return c.judge("the first attempt", e.Class+" "+e.Reply, e.Class == "delivered", e.Class == "tempfail")
}

// deliver sends a message by way of the plugin and waits for its first attempt.
func (c *cell) deliver() (e event.Event, tag string, err error) {
	s := c.session("plain")
	defer s.close()
	size := 1000
	if c.fault == "huge" {
		size = 100 << 10 // by Large
	}
	tag, id, code := c.send(s, "bob@else.example", "ann@"+c.fault+".example", size)
	if code != 250 {
		return e, tag, fmt.Errorf("the message was answered %s", s)
	}
	ctx, cancel := context.WithTimeout(context.Background(), faultPatience)
	defer cancel()
	e, ok := c.attempt(ctx, id, 1)
	if !ok {
		return e, tag, fmt.Errorf("message %s was not attempted", id)
	}
	return e, tag, nil
}

func (c *cell) goodDelivery() error {
	e, tag, err := c.deliver()
	if err != nil {
		return err
	}
	c.hurry()
	if e.Class != "delivered" {
		return fmt.Errorf("an attempt: %s %s", e.Class, e.Reply)
	}
	if c.kind == "converter" && !slices.Equal(c.sink.got(tag), []sunk{{tag, true}}) {
		return fmt.Errorf("%s came to the host as %v", tag, c.sink.got(tag))
	}
	return nil
}

// probeReport wants the server's own report where the notifier can't word it.
func (c *cell) probeReport() error {
	line, err := c.report()
	if err != nil {
		return err
	}
	words := strings.Contains(line, badWords)
	return c.judge("the report", line, words, !words)
}

// report sends a message that can't be delivered and returns the line of the report.
func (c *cell) report() (line string, err error) {
	s := c.session("plain")
	defer s.close()
	tag, _, code := c.send(s, c.fault+"@here.example", "reject@refusing.example", 100)
	if code != 250 {
		return "", fmt.Errorf("the message was answered %s", s)
	}
	if !until(func() bool { return len(c.stored(tag)) > 0 }) {
		return "", fmt.Errorf("no report of %s came", tag)
	}
	return c.stored(tag)[0], nil
}

func (c *cell) goodReport() error {
	line, err := c.report()
	if err == nil && !strings.Contains(line, badWords) {
		err = fmt.Errorf("the report: %s", line)
	}
	time.Sleep(100 * time.Millisecond) // each try is a whole report
	return err
}
