package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
)

// Checked is what Check has read.
type Checked struct {
	Messages int64 // that are sound
	Bytes    int64 // of their contents
	Damaged  int64 // messages of which something can't be read
}

// Check reads every message that was in the queue when it was called, and proves the checksums of its record and of its
// content. It calls fn for each that is damaged; the record holds no more than the ID when nothing else can be read. It may
// be called while the queue is in use. It ends with the first error of fn.
func (q *Queue) Check(ctx context.Context, fn func(rec *Record, damage error) error) (Checked, error) {
	var c Checked
	buf := make([]byte, chunkSize)
	err := q.each(ctx, func(rec *Record, err error) error {
		if err == nil {
			err = q.readThrough(ctx, rec, buf)
		}
		switch {
		case errors.Is(err, ErrNotFound): // removed meanwhile
			return nil
		case errors.Is(err, ErrDamaged):
			c.Damaged++
			return fn(rec, err)
		case err != nil:
			return err
		}
		c.Messages++
		c.Bytes += rec.Size
		return nil
	})
	return c, err
}

// readThrough reads the whole content of a message.
func (q *Queue) readThrough(ctx context.Context, rec *Record, buf []byte) error {
	c := &content{q: q, rec: rec, n: -1}
	for off := int64(0); off < rec.Size; off += chunkSize {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := c.ReadAt(buf[:min(rec.Size-off, chunkSize)], off); err != nil {
			return err
		}
	}
	return nil
}

// audit names the messages that are damaged, in the log and in the Stats. It runs when something of the value log is known
// to be missing, beside the deliveries.
func (q *Queue) audit(ctx context.Context) {
	defer q.readers.Done()
	const most = 100 // lines in the log
	named := 0
	c, err := q.Check(ctx, func(rec *Record, damage error) error {
		if named++; named <= most {
			q.logDamaged(ctx, rec.ID, damage)
		}
		return nil
	})
	if err != nil {
		q.log.LogAttrs(ctx, slog.LevelWarn, "the queue could not be proved to the end", slog.Any("error", err))
		return
	}
	q.stats.damaged.Store(c.Damaged)
	if c.Damaged > 0 {
		q.trouble(fmt.Sprintf("%d messages can't be read; the other %d are sound", c.Damaged, c.Messages))
	}
}

func (q *Queue) logDamaged(ctx context.Context, id ID, err error) {
	q.log.LogAttrs(ctx, slog.LevelError, "a message in the queue can't be read", slog.String("id", id.String()), slog.Any("error", err))
}
