package pipeline

import (
	"context"
	"sync"

	"github.com/pabal-mta/mta/sdk/mail"
)

// groupSize returns how many of the first steps are asked together.
func groupSize(steps []Step) int {
	n := 1
	for n < len(steps) && steps[0].Group != 0 && steps[n].Group == steps[0].Group {
		n++
	}
	return n
}

// together asks the filters of a group at the same time and waits for all. What they answered is settled in the order of
// the steps, so that the outcome does not hang on who was faster.
func (t *turn) together(caller, ctx context.Context, steps []Step) (worst mail.Verdict, end bool) {
	answers := make([]inquiry, len(steps))
	var wg sync.WaitGroup
	for i := range steps {
		if handles(steps[i].Filter, t.stage) {
			wg.Go(func() { answers[i] = t.inquire(ctx, &steps[i]) })
		}
	}
	wg.Wait()
	asked := false
	for i, a := range answers {
		if !a.asked {
			continue
		}
		if v := t.settle(caller, ctx, &steps[i], a); !asked || severity(v.Action) > severity(worst.Action) {
			worst = v
		}
		asked = true
	}
	return worst, asked && worst.Action != mail.ActionContinue
}

// bySeverity orders the actions. Accept skips the later steps, so it counts only where all agree.
var bySeverity = [...]mail.Action{
	mail.ActionAccept, mail.ActionContinue, mail.ActionQuarantine, mail.ActionDiscard, mail.ActionTempFail, mail.ActionReject,
	mail.ActionDisconnect,
}

func severity(a mail.Action) int {
	for i, x := range bySeverity {
		if x == a {
			return i
		}
	}
	return -1
}
