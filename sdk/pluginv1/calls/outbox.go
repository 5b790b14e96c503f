package calls

import (
	"context"
	"runtime"
	"sync"
)

// outbox gathers what wants to leave while a frame is going out, so that it leaves together in the next one.
type outbox[T any] struct {
	mu    sync.Mutex
	items []T
	wake  chan struct{}
}

func newOutbox[T any]() *outbox[T] { return &outbox[T]{wake: make(chan struct{}, 1)} }

func (o *outbox[T]) put(v T) {
	o.mu.Lock()
	o.items = append(o.items, v)
	first := len(o.items) == 1
	o.mu.Unlock()
	if !first {
		return // whoever was first has woken the sender
	}
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// run hands over what has gathered until ctx ends or send fails. The slice is used again after send has returned.
func (o *outbox[T]) run(ctx context.Context, send func([]T) error) error {
	var spare []T
	for {
		select {
		case <-o.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
		runtime.Gosched() // those who are just about to put something come along
		o.mu.Lock()
		items := o.items
		o.items = spare[:0]
		o.mu.Unlock()
		if err := send(items); err != nil {
			return err
		}
		clear(items)
		spare = items
	}
}
