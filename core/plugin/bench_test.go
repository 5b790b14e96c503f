package plugin

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

func BenchmarkCalls(b *testing.B) {
	p := start(b, spec(b, "good"))
	s := &mail.Session{ID: "0123456789abc", Listener: "mx", Helo: "client.example.com", ESMTP: true, From: mail.MustParseAddress("sender@example.com")}
	r := mail.Recipient{Address: mail.MustParseAddress("ann@example.com")}
	for _, callers := range []int{1, 8, 20, 64, 256} {
		b.Run(strconv.Itoa(callers), func(b *testing.B) {
			b.ReportAllocs()
			measured(b, p.Status().PID, callers, func(int) error {
				v, err := p.Rcpt(b.Context(), s, r)
				if err == nil && v.Action != mail.ActionContinue {
					err = fmt.Errorf("%v", v)
				}
				return err
			})
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
