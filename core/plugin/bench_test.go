package plugin

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

func BenchmarkCalls(b *testing.B) {
	p := start(b, spec(b, "good"))
	s := &mail.Session{ID: "0123456789abc", Listener: "mx", Helo: "client.example.com", ESMTP: true, From: mail.MustParseAddress("sender@example.com")}
	r := mail.Recipient{Address: mail.MustParseAddress("ann@example.com")}
	for _, callers := range []int{1, 8, 64, 256} {
		b.Run(strconv.Itoa(callers), func(b *testing.B) {
			var wg sync.WaitGroup
			b.ReportAllocs()
			hostCPU, pluginCPU := cpu(b, 0), cpu(b, p.Status().PID)
			work := make(chan int, callers)
			for i := range callers {
				work <- b.N/callers + min(1, max(0, b.N%callers-i))
			}
			for range callers {
				wg.Go(func() {
					for range <-work {
						if v, err := p.Rcpt(b.Context(), s, r); err != nil || v.Action != mail.ActionContinue {
							b.Error(v, err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
			b.ReportMetric(float64((cpu(b, 0)-hostCPU).Nanoseconds())/float64(b.N), "host-cpu-ns/op")
			b.ReportMetric(float64((cpu(b, p.Status().PID)-pluginCPU).Nanoseconds())/float64(b.N), "plugin-cpu-ns/op")
		})
	}
}

// cpu returns the processor time that a process has used; 0 is this one.
func cpu(b *testing.B, pid int) time.Duration {
	name := "self"
	if pid != 0 {
		name = strconv.Itoa(pid)
	}
	stat, err := os.ReadFile("/proc/" + name + "/stat")
	if err != nil {
		b.Skip(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	f := strings.Fields(rest)
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}
