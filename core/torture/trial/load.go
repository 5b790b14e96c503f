package trial

import (
	"bytes"
	"errors"
	"fmt"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pabal-mta/mta/core/torture/ledger"
	"github.com/pabal-mta/mta/core/torture/peer"
)

// book is where a load writes down what it does.
type book interface {
	Offer(m ledger.Message)
	Ack(id string)
	Deny(id, reply string)
}

// load hands messages to a server over some connections until it is told to stop. A message is never sent again: what
// became of one whose answer did not come is not known, and it may come or not.
type load struct {
	address string
	next    *atomic.Int64 // the number of the last message
	pause   time.Duration // between two messages of a connection
	book    book
	taken   atomic.Int64 // acknowledged
	full    atomic.Int64 // not, for want of space: 452

	stopped atomic.Bool
	workers sync.WaitGroup
}

func (g *load) start(connections int) {
	for range connections {
		g.workers.Go(func() {
			for !g.stopped.Load() {
				if g.session() != nil {
					time.Sleep(5 * time.Millisecond) // the server is down: a client of flesh and blood waits longer
				}
			}
		})
	}
}

func (g *load) stop() {
	g.stopped.Store(true)
	g.workers.Wait()
}

// session sends messages over one connection until that breaks.
func (g *load) session() error {
	c, err := peer.Dial(g.address, Patience)
	if err != nil {
		return err
	}
	defer c.Close()
	for !g.stopped.Load() {
		n := int(g.next.Add(1))
		m, from, body := message(n)
		g.book.Offer(m)
		if err := c.Send(from, m.To, peer.Numbered(m.ID, body)); err != nil {
			g.refusedBy(m.ID, err)
			return err
		}
		g.book.Ack(m.ID)
		g.taken.Add(1)
		if g.pause > 0 {
			time.Sleep(g.pause)
		}
	}
	return nil
}

// refusedBy looks at the reply to a message that was not acknowledged, if there is one.
func (g *load) refusedBy(id string, err error) {
	reply := new(textproto.Error)
	switch {
	case !errors.As(err, &reply):
	case reply.Code == 452:
		g.full.Add(1)
	case reply.Code >= 500:
		g.book.Deny(id, reply.Error())
	}
}

// The names of recipients whom the sinks refuse, or put off.
const (
	nobody = "nobody"
	later  = "later"
)

// message makes message n: to one of two hosts, where one in 40 is refused, and of the others every third put off. Its
// sender's name is its number, so that a report tells what it is about.
func message(n int) (m ledger.Message, from string, body []byte) {
	body = BodyOf(n)
	name, host := "u", []string{"one", "two"}[n%2]
	m = ledger.Message{ID: fmt.Sprint(n), Sum: peer.Sum(body), Refused: n%40 == 39}
	switch {
	case m.Refused:
		name, host = nobody, []string{"one", "two"}[n/40%2]
	case n%3 == 0:
		name = later
	}
	m.To = fmt.Sprintf("%s%d@%s.example", name, n, host)
	return m, fmt.Sprintf("<m%d@back.example>", n), body
}

// BodyOf makes a body of a few hundred bytes, or a few thousand, that belongs to a number, with lines that begin with
// dots. One in 200 is so large that it is not kept in memory until its first attempt.
func BodyOf(n int) []byte {
	line := fmt.Appendf(nil, "line of message %d\r\n.dot\r\n..\r\n\r\n", n)
	if n%200 == 199 {
		return bytes.Repeat(line, 50_000)
	}
	return bytes.Repeat(line, 10+n%100)
}

// refusal is the sinks' reply to the recipients of messages that are to be refused or put off.
func refusal(to string) string {
	switch {
	case strings.HasPrefix(to, nobody):
		return "550 5.1.1 nobody here"
	case strings.HasPrefix(to, later):
		return "450 4.2.1 not now"
	}
	return ""
}

// classify tells a report from a delivery: it goes back to the sender, whose name is the number of the message.
func classify(list []ledger.Arrival) []ledger.Arrival {
	for i := range list {
		if id, ok := strings.CutSuffix(list[i].To, "@back.example"); ok {
			list[i].ID, list[i].Report = strings.TrimPrefix(id, "m"), true
		}
	}
	return list
}
