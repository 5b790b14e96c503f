package engine

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pabal-mta/mta/core/event"
)

// probeLogin wants 454 from an authenticator that can't answer, whatever the password is: a wrong one may be refused by
// the authenticator alone.
func (c *cell) probeLogin() error {
	for _, password := range []string{"wrong", "right"} {
		s := c.session(c.fault)
		code := s.login(password)
		s.close()
		said := map[string]int{"wrong": 535, "right": 235}[password]
		if err := c.judge("the "+password+" password", s.String(), code == said, code == 454); err != nil {
			return err
		}
	}
	return nil
}

func (c *cell) goodLogin() (at time.Time, err error) {
	s := c.session(c.fault)
	defer s.close()
	if code := s.login("right"); code != 235 {
		return at, fmt.Errorf("the right password: %s", s)
	}
	at = time.Now()
	s = c.session(c.fault)
	defer s.close()
	if code := s.login("wrong"); code != 535 {
		return at, fmt.Errorf("a wrong password: %s", s)
	}
	return at, nil
}

// probeFilter wants 4xx where the filter can't answer: on_error is tempfail.
func (c *cell) probeFilter() error {
	s := c.session(c.fault)
	defer s.close()
	_, _, code := c.send(s, "bob@else.example", "ann@here.example", 100)
	return c.judge("a recipient", s.String(), code == 250, code/100 == 4)
}

func (c *cell) goodFilter() (at time.Time, err error) {
	s := c.session(c.fault)
	defer s.close()
	s.say("MAIL FROM:<bob@else.example>")
	if code := s.say("RCPT TO:<refused@here.example>"); code != 550 {
		return at, fmt.Errorf("a recipient that the filter refuses: %s", s)
	}
	at = time.Now()
	if code := s.say("RCPT TO:<ann@here.example>"); code != 250 {
		return at, fmt.Errorf("a recipient: %s", s)
	}
	return at, nil
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
	e, ok := c.attempt(ctx, id)
	if !ok {
		return e, tag, fmt.Errorf("message %s was not attempted", id)
	}
	return e, tag, nil
}

func (c *cell) goodDelivery() (at time.Time, err error) {
	e, tag, err := c.deliver()
	at = time.Now()
	if err != nil {
		return at, err
	}
	c.hurry()
	if e.Class != "delivered" {
		return at, fmt.Errorf("an attempt: %s %s", e.Class, e.Reply)
	}
	if c.kind == "converter" && !slices.Equal(c.sink.got(tag), []sunk{{tag, true}}) {
		return at, fmt.Errorf("%s came to the host as %v", tag, c.sink.got(tag))
	}
	return at, nil
}

// The server's own report of a message that can't be delivered, as core/bounce words it.
const ownSubject, ownWords = "Your message could not be delivered", "the server's"

// probeReport wants the server's own report where the notifier can't word it.
func (c *cell) probeReport() error {
	e, err := c.report()
	if err != nil {
		return err
	}
	return c.judge("the report", fmt.Sprintf("%+v", e), goodWords(e), e.Subject == ownSubject && e.Words == ownWords)
}

// goodWords reports that a report is in the words of the plugin, and in no others.
func goodWords(e entry) bool { return e.Subject == badWords && e.Words == "the plugin's" }

// report sends a message that can't be delivered and returns what the store has of the report.
func (c *cell) report() (e entry, err error) {
	s := c.session("plain")
	defer s.close()
	tag, _, code := c.send(s, c.fault+"@here.example", "reject@refusing.example", 100)
	if code != 250 {
		return e, fmt.Errorf("the message was answered %s", s)
	}
	for end := time.Now().Add(faultPatience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if list, _ := c.ledger.of(tag); len(list) > 0 {
			return list[0], nil
		}
	}
	return e, fmt.Errorf("no report of %s came", tag)
}

func (c *cell) goodReport() (at time.Time, err error) {
	e, err := c.report()
	at = time.Now()
	if err == nil && !goodWords(e) {
		err = fmt.Errorf("the report: %+v", e)
	}
	return at, err
}
