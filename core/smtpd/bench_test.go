package smtpd

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// BenchmarkReceive measures messages over loopback, each connection a transaction after the other: MAIL, RCPT and DATA
// in one write, then the body. cpu-us/op is of the whole process, the clients in it.
func BenchmarkReceive(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20, 4 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) { benchmarkReceive(b, size, 20) })
	}
}

func benchmarkReceive(b *testing.B, size, connections int) {
	s, err := New(Config{
		Hostname: "mx.ours.example", SpoolDir: b.TempDir(), Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	}, Deps{Queue: func(_ context.Context, a *Accepted) (string, error) {
		a.Release()
		return "Q", nil
	}})
	if err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go s.Serve(l)
	line := strings.Repeat("x", 70) + "\r\n"
	body := []byte("Subject: x\r\n\r\n" + strings.Repeat(line, size/len(line)) + ".\r\n")
	jobs := make(chan struct{})
	var group sync.WaitGroup
	for range connections {
		group.Go(func() { sendAll(b, l.Addr().String(), body, jobs) })
	}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	before := cpu(b)
	b.ResetTimer()
	for range b.N {
		jobs <- struct{}{}
	}
	close(jobs)
	group.Wait()
	b.StopTimer()
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-us/op")
	if err := s.Shutdown(context.Background()); err != nil {
		b.Error(err)
	}
}

func sendAll(b *testing.B, addr string, body []byte, jobs <-chan struct{}) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Error(err)
		return
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	replies := func(n int) {
		for n > 0 {
			line, err := r.ReadSlice('\n')
			if err != nil || line[0] > '3' {
				b.Errorf("answered %q, %v", line, err)
				return
			}
			if line[3] == ' ' {
				n--
			}
		}
	}
	conn.Write([]byte("EHLO c.example\r\n"))
	replies(2)
	envelope := []byte("MAIL FROM:<a@c.example>\r\nRCPT TO:<ann@ours.example>\r\nDATA\r\n")
	for range jobs {
		conn.Write(envelope)
		replies(3)
		conn.Write(body)
		replies(1)
	}
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
