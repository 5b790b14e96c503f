// Package load is the generator: it sends messages over several connections at once, each as fast as the server takes
// them, and writes into a ledger what became of each. It stops at the end of its time, when the ledger is full, or when
// its context ends; what is under way then is finished.
package load

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pabal-mta/mta/cmd/mtabench/ledger"
)

// Spec says what is sent.
type Spec struct {
	Address     string        // of the server
	Connections int           // at once
	PerConn     int           // messages on each connection before QUIT
	Size        int           // bytes of a body
	Recipients  int           // of each message; at most ledger.MaxRecipients
	Domain      string        // theirs; "": that of the sink
	Messages    int           // at most so many; 0: until the ledger is full
	Time        time.Duration // in which transactions are begun
}

// Result is what was not taken, counted, and when the last message was.
type Result struct {
	TempFail, PermFail, Broken int // 4xx, 5xx, and connections that failed
	Sample                     string
	Elapsed                    time.Duration // from the first transaction to the last 250
}

const (
	sender    = "bench@src.test"
	domain    = "sink.test"
	pause     = 20 * time.Millisecond // after a failure
	giveUpAt  = 200                   // failures in a row, on one connection
	spareRoom = 1024                  // for the header
)

// run is what the workers share.
type run struct {
	Spec
	ledger   *ledger.Ledger
	letter   *letter
	envelope []string
	until    time.Time
	begun    atomic.Int64

	tempFail, permFail, broken atomic.Int64
	sample                     atomic.Pointer[string]
}

// Run sends the load and returns when every connection has ended.
func Run(ctx context.Context, spec Spec, l *ledger.Ledger) (Result, error) {
	if spec.Recipients < 1 || spec.Recipients > ledger.MaxRecipients {
		return Result{}, fmt.Errorf("a message has 1 to %d recipients, not %d", ledger.MaxRecipients, spec.Recipients)
	}
	to := cmp.Or(spec.Domain, domain)
	r := &run{Spec: spec, ledger: l, letter: newLetter(sender, "r0@"+to, spec.Size), until: time.Now().Add(spec.Time)}
	r.envelope = append(r.envelope, "MAIL FROM:<"+sender+">\r\n")
	for i := range spec.Recipients {
		r.envelope = append(r.envelope, fmt.Sprintf("RCPT TO:<r%d@%s>\r\n", i, to))
	}
	r.envelope = append(r.envelope, "DATA\r\n")
	start := l.Elapsed()
	var workers sync.WaitGroup
	for range spec.Connections {
		workers.Go(func() { r.work(ctx) })
	}
	workers.Wait()
	res := Result{TempFail: int(r.tempFail.Load()), PermFail: int(r.permFail.Load()), Broken: int(r.broken.Load())}
	if s := r.sample.Load(); s != nil {
		res.Sample = *s
	}
	if last := l.LastAccepted(); last > start {
		res.Elapsed = last - start
	}
	return res, nil
}

func (r *run) more(ctx context.Context) bool {
	return ctx.Err() == nil && time.Now().Before(r.until) && (r.Messages <= 0 || r.begun.Add(1) <= int64(r.Messages))
}

// work keeps one connection busy.
func (r *run) work(ctx context.Context) {
	w := worker{run: r, buf: make([]byte, 0, len(r.letter.stuffed)+spareRoom)}
	defer w.leave()
	for failures := 0; failures < giveUpAt && r.more(ctx); {
		id, ok := r.ledger.Begin(r.Recipients)
		if !ok {
			return
		}
		if err := w.send(id); err != nil {
			failures++
			r.count(err)
			w.drop()
			time.Sleep(pause)
			continue
		}
		failures = 0
	}
}

func (r *run) count(err error) {
	text := err.Error()
	r.sample.CompareAndSwap(nil, &text)
	reply, ok := err.(*Reply)
	switch {
	case !ok:
		r.broken.Add(1)
	case reply.Code >= 500:
		r.permFail.Add(1)
	default:
		r.tempFail.Add(1)
	}
}

// worker has one connection at a time.
type worker struct {
	*run
	conn *conn
	sent int // on this connection
	buf  []byte
}

func (w *worker) send(id int) (err error) {
	if w.conn == nil {
		if w.conn, err = dial(w.Address); err != nil {
			w.conn = nil
			return err
		}
		w.sent = 0
	}
	err = w.conn.envelope(w.envelope)
	if err == nil {
		w.buf = w.letter.append(w.buf[:0], w.ledger.Run(), id)
		err = w.conn.content(w.buf)
	}
	if isReply(err) {
		w.ledger.Refuse(id)
	}
	if err != nil {
		return err
	}
	w.ledger.Accept(id)
	if w.sent++; w.sent >= w.PerConn {
		w.leave()
	}
	return nil
}

func (w *worker) leave() {
	if w.conn != nil {
		w.conn.quit()
		w.conn = nil
	}
}

func (w *worker) drop() {
	if w.conn != nil {
		w.conn.Close()
		w.conn = nil
	}
}
