package queue

import (
	"testing"
	"time"
)

// TestGather plays a committer: each row is a moment and what the next group waits for then.
func TestGather(t *testing.T) {
	start := time.Unix(1000, 0)
	for _, row := range []struct {
		name             string
		g                gather
		messages, urgent int
		after            time.Duration
		want             time.Duration
	}{
		{"nothing to write", gather{}, 0, 0, 0, forever},
		{"one who is alone does not wait", gather{message: start, sync: time.Second}, 1, 0, 0, 0},
		{"others are on their way", gather{expected: 20, message: start, sync: 800 * time.Microsecond}, 5, 0, 300 * time.Microsecond, 500 * time.Microsecond},
		{"never longer than patience", gather{expected: 20, message: start, sync: time.Second}, 5, 0, 0, patience},
		{"all are there", gather{expected: 20, message: start, sync: time.Second}, 20, 0, 0, 0},
		{"patience is over", gather{expected: 20, message: start, sync: time.Second}, 5, 0, patience, 0},
		{"an outcome waits for a message", gather{outcome: start}, 0, 1, 0, lazily},
		{"an outcome has waited", gather{outcome: start}, 0, 1, lazily, 0},
		{"many outcomes", gather{outcome: start}, 0, manyUrgent, 0, 0},
		{"a message ends the wait of an outcome", gather{outcome: start, message: start, sync: time.Second}, 1, 1, 0, 0},
		{"nothing is synced", gather{off: true, outcome: start}, 0, 1, 0, 0},
		{"nothing is synced, and nothing is there", gather{off: true}, 0, 0, 0, forever},
	} {
		if got := row.g.wait(start.Add(row.after), row.messages, row.urgent); got != row.want {
			t.Errorf("%s: waits %v, want %v", row.name, got, row.want)
		}
	}
}

func TestGatherLearns(t *testing.T) {
	var g gather
	group := func(messages, came int) {
		g.begun(time.Now(), messages, 0)
		g.ended(came)
	}
	group(10, 10)
	if g.expected != 20 {
		t.Errorf("ten and ten: %d are expected", g.expected)
	}
	group(0, 0) // a group of outcomes teaches nothing
	if g.expected != 20 {
		t.Errorf("after outcomes %d are expected", g.expected)
	}
	for range 40 {
		group(1, 0)
	}
	if g.expected != 1 {
		t.Errorf("when one is left, %d are expected", g.expected)
	}
}
