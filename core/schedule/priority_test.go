package schedule

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pabal-mta/mta/core/deliver"
	"github.com/pabal-mta/mta/core/queue"
)

func urgent(m *queue.Message, priority int8) *queue.Message {
	m.Envelope.Priority = priority
	return m
}

// TestPriorities: of what is ready for a site the urgent goes out first, whether it is in memory or on disk, new or waiting; what
// is less urgent gets every eighth turn, so that it is not kept for ever; and within one priority what came first goes first.
func TestPriorities(t *testing.T) {
	for _, memory := range []int64{0, 1} { // in memory, or not
		synctest.Test(t, func(t *testing.T) {
			const each = 100
			w := prepare(t, newStore(t), func(o *Options) { o.Limits.SiteConnections, o.Limits.Memory = 1, memory })
			w.net.before = nil
			levels := []int8{-9, -1, 0, 1, 9}
			for i := range each {
				for _, p := range levels {
					r := w.queue.add(urgent(message(fmt.Sprintf("u%d@example.net", i)), p))
					w.Offer(r, w.queue.content[r.ID]) // before the start, so that all are ready
				}
			}
			w.start()
			synctest.Wait()
			made := w.net.made()
			if len(made) != each*len(levels) {
				t.Fatalf("%d attempts", len(made))
			}
			var order [lanes][]int
			for i, a := range made {
				lane := laneOf(a.job.Envelope.Priority)
				order[lane] = append(order[lane], i)
			}
			for lane, latest := range map[int]int{0: 2*each*8/7 + 2, 1: 3*each*8/7 + 2} {
				if last := order[lane][len(order[lane])-1]; last > latest {
					t.Errorf("the last of lane %d is attempt %d, later than %d", lane, last, latest)
				}
			}
			if n, _ := slices.BinarySearch(order[2], 2*each); n < 2*each/lowTurn-2 {
				t.Errorf("of the least urgent %d go out while there is urgent mail", n)
			}
			last := map[int8]int{}
			for _, a := range made {
				var n int
				if _, err := fmt.Sscanf(a.job.Envelope.To[0].Address.String(), "u%d@", &n); err != nil {
					t.Fatal(err)
				}
				if p := a.job.Envelope.Priority; n < last[p] {
					t.Errorf("u%d of priority %d after u%d", n, p, last[p])
				} else {
					last[p] = n
				}
			}
		})
	}
}

// TestPriorityOfRetriesAndReports: a message keeps its priority while it waits, over a restart, and gives it to its report.
func TestPriorityOfRetriesAndReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := prepare(t, newStore(t), func(o *Options) { o.Limits.SiteConnections = 1 })
		w.net.answer = byDomain(map[string]deliver.Outcome{"example.net": later})
		for i, p := range []int8{0, -2, 5, 0} {
			w.queue.add(urgent(message(fmt.Sprintf("u%d@example.net", i)), p))
		}
		w.start() // they are on disk
		time.Sleep(exactly.Delays[0] + time.Minute)
		var got []int8
		for _, a := range w.net.made() {
			got = append(got, a.job.Envelope.Priority)
		}
		if first := slices.Index(got[4:], 5); len(got) != 8 || first != 0 || got[7] != -2 {
			t.Errorf("attempts in the order %v", got)
		}
		w.net.mu.Lock()
		w.net.answer = byDomain(map[string]deliver.Outcome{"example.net": never})
		w.net.mu.Unlock()
		time.Sleep(time.Hour)
		var reports []int8
		for _, j := range w.reports("ann@example.org") {
			reports = append(reports, j.Envelope.Priority)
		}
		slices.Sort(reports)
		if !slices.Equal(reports, []int8{-2, 0, 0, 5}) {
			t.Errorf("reports of priority %v", reports)
		}
	})
}
