package trial

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/core/torture/failing"
	"github.com/pabal-mta/mta/core/torture/peer"
	"github.com/pabal-mta/mta/sdk/mail"
)

// handMessages is how many messages a Hand adds: a few thousand bytes each, one that has to be written in pieces, and some
// that are together larger than a file of the journal, and what is kept of them than one of the value log. So what happens at
// the turn of a file fails, too.
const (
	handMessages = 24
	handLarge    = 9 << 20
)

// Hand arms itself, so that calls of that kind may fail from now on, uses the queue in dir without a server, and says on w what it has done: "offer N SUM" before a message is added, "acked N" when that is durable, "settling N" before its removal
// is asked for and "settled N" when that is durable. At the first error of the queue it says "failed", and tries once more:
// a queue that failed once must take nothing any more. An error says that the queue could not be opened or closed.
func Hand(ctx context.Context, call, dir string, w io.Writer) (err error) {
	if call != "" {
		if err := failing.Arm(call); err != nil {
			return err
		}
	}
	q, err := queue.Open(dir, queue.Options{MinFree: -1})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	if err := q.Recover(ctx, func(*queue.Record) error { return nil }); err != nil {
		return err
	}
	h := &hand{q: q, w: w}
	var workers sync.WaitGroup
	for i := range 4 {
		workers.Go(func() {
			for n := i; n < handMessages; n += 4 {
				h.one(ctx, n)
			}
		})
	}
	workers.Wait()
	h.settling.Wait()
	return nil
}

type hand struct {
	q        *queue.Queue
	settling sync.WaitGroup

	mu sync.Mutex
	w  io.Writer
}

func (h *hand) say(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	line := fmt.Appendf(nil, format+"\n", args...)
	for range 2 { // the write that fails may be this one
		if _, err := h.w.Write(line); err == nil {
			return
		}
	}
}

// one adds a message, and removes two of three.
func (h *hand) one(ctx context.Context, n int) {
	body := BodyOf(n)
	switch n {
	case 12, 13, 15, 16, 18, 21: // a third of them is removed
		body = bytes.Repeat(body, handLarge/len(body))
	case handMessages - 1:
		body = BodyOf(199)
	}
	h.say("offer %d %s", n, peer.Sum(body))
	rec, err := h.add(ctx, n, body)
	if err != nil {
		h.failed(ctx, n, err)
		return
	}
	h.say("acked %d", n)
	if n%3 == 0 {
		return
	}
	h.say("settling %d", n)
	rec.Recipients[0].State = queue.Delivered
	h.settling.Add(1)
	h.q.Settle(rec, nil, func(_ []*queue.Record, err error) {
		defer h.settling.Done()
		if err == nil {
			h.say("settled %d", n)
		}
	})
}

func (h *hand) add(ctx context.Context, n int, body []byte) (*queue.Record, error) {
	return h.q.Add(ctx, &queue.Message{
		Envelope: mail.Envelope{From: mail.MustParseAddress("carol@sender.example"), To: []mail.Recipient{{Address: mail.MustParseAddress("ann@one.example")}}},
		Content:  mail.Bytes(peer.Numbered(fmt.Sprint(n), body)),
	})
}

// failed says so, and looks whether the queue goes on after a storage error.
func (h *hand) failed(ctx context.Context, n int, err error) {
	h.say("failed %d %q", n, err)
	if !errors.Is(err, queue.ErrStopped) {
		return
	}
	if _, err := h.add(ctx, n+1000, []byte("after the failure\r\n")); err == nil {
		h.say("wenton %d", n)
	}
}
