package queue

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

// cpu returns the processor time that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchMessage(size int) *Message {
	return &Message{
		Envelope: mail.Envelope{
			From: mail.MustParseAddress("ann.sender@example.com"),
			To:   []mail.Recipient{{Address: mail.MustParseAddress("bob.recipient@example.net")}},
			Body: mail.Body8Bit,
		},
		Content: mail.Bytes(bytes.Repeat([]byte("0123456789abcdef\r\n"), size/18+1)[:size]),
		Meta:    map[string]string{"remote": "192.0.2.1:40000", "listener": "mx", "helo": "client.example.com"},
	}
}

// drive runs fn b.N times on so many goroutines and reports the rate, the processor time of each and the size of groups.
func drive(b *testing.B, q *Queue, workers int, fn func() error) {
	var left atomic.Int64
	left.Store(int64(b.N))
	groups, start, used := q.Stats().Groups, time.Now(), cpu()
	b.ResetTimer()
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := fn(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	n := float64(b.N)
	b.ReportMetric(n/time.Since(start).Seconds(), "msg/s")
	b.ReportMetric(float64((cpu()-used).Microseconds())/n, "cpu-µs/op")
	b.ReportMetric(n/float64(q.Stats().Groups-groups), "msg/group")
}

func benchQueue(b *testing.B) *Queue {
	q, err := Open(b.TempDir(), Options{MinFree: 1 << 20})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { q.Close() })
	return q
}

func BenchmarkAdd(b *testing.B) {
	for _, size := range []int{4 << 10, 100 << 10} {
		for _, workers := range []int{1, 20, 64, 100} {
			b.Run(fmt.Sprintf("%dKiB/%d", size>>10, workers), func(b *testing.B) {
				q, m := benchQueue(b), benchMessage(size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				drive(b, q, workers, func() error {
					_, err := q.Add(b.Context(), m)
					return err
				})
			})
		}
	}
}

// BenchmarkCycle is the life of a message that is delivered at once: Add, and a Settle that nobody waits for.
func BenchmarkCycle(b *testing.B) {
	for _, workers := range []int{1, 20, 64, 100} {
		b.Run(fmt.Sprint(workers), func(b *testing.B) {
			q, m := benchQueue(b), benchMessage(4<<10)
			var settled sync.WaitGroup
			b.SetBytes(4 << 10)
			b.ReportAllocs()
			drive(b, q, workers, func() error {
				rec, err := q.Add(b.Context(), m)
				if err != nil {
					return err
				}
				rec.Recipients[0].State = Delivered
				settled.Add(1)
				q.Settle(rec, nil, func(_ []*Record, err error) {
					if err != nil {
						b.Error(err)
					}
					settled.Done()
				})
				return nil
			})
			settled.Wait()
		})
	}
}

// BenchmarkMark is what the mark costs a group.
func BenchmarkMark(b *testing.B) {
	m, err := openMark(b.TempDir(), os.O_RDWR)
	if err != nil {
		b.Fatal(err)
	}
	if err := m.create(); err != nil {
		b.Fatal(err)
	}
	defer m.close()
	b.ReportAllocs()
	for i := range b.N {
		if err := m.note(waterline{tally: tally{groups: uint64(i)}}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkChurn adds messages and settles each when a thousand others have come after it, and reports how much disk the
// queue holds at the most: garbage has to go as fast as it comes.
func BenchmarkChurn(b *testing.B) {
	for _, size := range []int{4 << 10, 100 << 10} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			dir := b.TempDir()
			q, err := Open(dir, Options{MinFree: 1 << 20})
			if err != nil {
				b.Fatal(err)
			}
			defer q.Close()
			m := benchMessage(size)
			queued := make(chan *Record, 1064)
			var peak, n atomic.Int64
			drive(b, q, 64, func() error {
				rec, err := q.Add(b.Context(), m)
				if err != nil {
					return err
				}
				if n.Add(1)%1000 == 0 {
					peak.Store(max(peak.Load(), diskUse(dir)))
				}
				if queued <- rec; len(queued) > 1000 {
					old := <-queued
					old.Recipients[0].State = Delivered
					q.Settle(old, nil, func(_ []*Record, err error) {
						if err != nil {
							b.Error(err)
						}
					})
				}
				return nil
			})
			b.ReportMetric(float64(peak.Load())/(1<<20), "peak-MiB")
			b.ReportMetric(float64(diskUse(dir))/(1<<20), "end-MiB")
		})
	}
}

// diskUse returns how many bytes of disk the files in dir take.
func diskUse(dir string) int64 {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	var sum int64
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || e.Name() == ballastName {
			continue // gone meanwhile
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			sum += st.Blocks * 512
		}
	}
	return sum
}
