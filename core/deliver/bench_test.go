package deliver

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/pabal-mta/mta/sdk/mail"
)

// discard is a sink that costs as little as it can: it answers to MAIL, RCPT and DATA that came together in one write.
func discard(c net.Conn, ehlo string) {
	defer c.Close()
	io.WriteString(c, "220 sink\r\n")
	r := bufio.NewReaderSize(c, 64<<10)
	var out []byte
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return
		}
		switch line[0] {
		case 'E':
			out = append(out, ehlo...)
		case 'D':
			out = append(out, "354 go\r\n"...)
			c.Write(out)
			for !bytes.Equal(line, []byte(".\r\n")) {
				if line, err = r.ReadSlice('\n'); err != nil {
					return
				}
			}
			out = append(out[:0], "250 2.0.0 queued as 12345678\r\n"...)
		case 'Q':
			return
		default:
			out = append(out, "250 2.1.0 ok\r\n"...)
		}
		if r.Buffered() == 0 {
			c.Write(out)
			out = out[:0]
		}
	}
}

func sink(tb testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go discard(c, "250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 104857600\r\n")
		}
	}()
	return l.Addr().String()
}

// BenchmarkDeliver sends 4 KiB over a connection that is used again; both sides are in the figure.
func BenchmarkDeliver(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20} {
		b.Run(map[int]string{4 << 10: "4KiB", 1 << 20: "1MiB"}[size], func(b *testing.B) {
			d := New(Options{Hostname: "me.example", Ways: map[string]Way{"out": {Kind: KindSmarthost, Hosts: []string{sink(b)}}}})
			defer d.Close(context.Background())
			line := strings.Repeat("x", 70) + "\r\n"
			j := job("bob@there.example")
			j.Content = mail.Bytes([]byte("Subject: x\r\n\r\n" + strings.Repeat(line, size/len(line))))
			b.SetBytes(j.Content.Size())
			b.ReportAllocs()
			before := cpuTime()
			for b.Loop() {
				if o := d.Attempt(b.Context(), j); o[0].Class != Delivered {
					b.Fatal(o[0].Reply, o[0].Err)
				}
			}
			b.ReportMetric(float64(cpuTime()-before)/float64(b.N)/1e3, "cpu-µs/op")
		})
	}
}

// BenchmarkDeliverBehind is the same for messages that are begun behind the one before.
func BenchmarkDeliverBehind(b *testing.B) {
	d := New(Options{Hostname: "me.example", Ways: map[string]Way{"out": {Kind: KindSmarthost, Hosts: []string{sink(b)}}}})
	defer d.Close(context.Background())
	this, next := job("bob@there.example"), job("bob@there.example")
	for _, j := range []*Job{this, next} {
		j.Content = mail.Bytes([]byte("Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 4<<10/72)))
		j.Next = func() *Job { return next }
	}
	b.SetBytes(this.Content.Size())
	b.ReportAllocs()
	before := cpuTime()
	for b.Loop() {
		if o := d.Attempt(b.Context(), this); o[0].Class != Delivered {
			b.Fatal(o[0].Reply, o[0].Err)
		}
		this, next = next, this
	}
	b.ReportMetric(float64(cpuTime()-before)/float64(b.N)/1e3, "cpu-µs/op")
}

// cpuTime is what the process has used, in nanoseconds: on a busy machine it tells more than the clock.
func cpuTime() int64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
