package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// rows prints a table while its rows come: a list may have a million of them, or one now and the next in a minute. Columns
// get wider where a later row needs it, and never narrower.
type rows struct {
	out io.Writer

	mu     sync.Mutex
	widths []int
	block  [][]string
	timer  *time.Timer
	err    error
}

// A block of rows is laid out and printed together.
const (
	rowsAtOnce = 500
	rowsWait   = 200 * time.Millisecond // at most, so that the first rows are seen soon
)

// add takes a row, with as many cells as the others. Its error is that of an earlier block.
func (r *rows) add(cells ...string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.block = append(r.block, cells)
	switch {
	case len(r.block) == rowsAtOnce:
		r.print()
	case r.timer == nil:
		r.timer = time.AfterFunc(rowsWait, func() { _ = r.flush() })
	}
	return r.err
}

// flush prints the rows that are still waiting.
func (r *rows) flush() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.print()
	return r.err
}

func (r *rows) print() {
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
	for _, cells := range r.block {
		for i, c := range cells {
			if i == len(r.widths) {
				r.widths = append(r.widths, 0)
			}
			r.widths[i] = max(r.widths[i], utf8.RuneCountInString(c))
		}
	}
	var b strings.Builder
	for _, cells := range r.block {
		for i, c := range cells {
			b.WriteString(c)
			if i < len(cells)-1 {
				b.WriteString(strings.Repeat(" ", r.widths[i]-utf8.RuneCountInString(c)+2))
			}
		}
		b.WriteByte('\n')
	}
	r.block = r.block[:0]
	if r.err == nil && b.Len() > 0 {
		_, r.err = fmt.Fprint(r.out, b.String())
	}
}
