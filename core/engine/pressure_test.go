package engine

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pabal-mta/mta/core/event"
)

// TestPressure has the disk fill and the output lag, and come back: each change is told once, and a state is left later than it
// was entered.
func TestPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		room, lag := int64(1000), 0.0
		var told []string
		p := &pressure{
			room: func(size int64) bool { return room > 0 && size <= room }, lag: func() float64 { return lag },
			tell: func(e event.Event) { told = append(told, fmt.Sprintf("%s %s %v", e.Name, e.Reason, e.Took)) },
		}
		for i, step := range []struct {
			room  int64
			lag   float64
			size  int64
			reply string // "" when mail is taken
			tells string
		}{
			{1000, 0, 0, "", ""},
			{1000, 32, 100, "", ""},
			{1000, 32, 1001, "452 4.3.1", ""}, // this one is too big for the disk, and others are not
			{1000, 33, 0, "452 4.3.2", "intake_stopped " + reasonLag + ": 33 times"},
			{1000, 40, 100, "452 4.3.2", ""},
			{1000, 29, 100, "452 4.3.2", ""},
			{1000, 28, 100, "", "intake_resumed " + reasonLag + " 3s"},
			{1000, 32, 100, "", ""},
			{0, 0, 0, "452 4.3.1", "intake_stopped " + reasonDisk},
			{0, 50, 0, "452 4.3.1", ""}, // the disk is what counts
			{1000, 30, 0, "", "intake_resumed " + reasonDisk + " 2s"},
		} {
			room, lag, told = step.room, step.lag, nil
			reply := ""
			if r := p.refuses(step.size); r != nil {
				reply = r.String()
			}
			if !strings.HasPrefix(reply, step.reply) || (step.reply == "") != (reply == "") {
				t.Errorf("step %d: %q, want %q", i, reply, step.reply)
			}
			if got := strings.Join(told, "; "); !strings.HasPrefix(got, step.tells) || (step.tells == "") != (got == "") {
				t.Errorf("step %d told %q, want %q", i, got, step.tells)
			}
			time.Sleep(time.Second)
		}
		lag = 100
		if reason, since, l := p.state(); reason != reasonLag || !since.Equal(time.Now()) || l != 100 {
			t.Error(reason, since, l)
		}
	})
}
