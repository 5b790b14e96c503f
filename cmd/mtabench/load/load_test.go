package load_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pabal-mta/mta/cmd/mtabench/ledger"
	"github.com/pabal-mta/mta/cmd/mtabench/load"
)

// plainServer answers each line as answer says; "" closes the connection. After a 354 it reads to the dot.
func plainServer(t *testing.T, answer func(line string) string) (address string, flights *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	flights = &atomic.Int64{}
	serve := func(c net.Conn) {
		defer c.Close()
		r := bufio.NewReader(c)
		for said := answer(""); said != ""; {
			fmt.Fprintf(c, "%s\r\n", said)
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			if r.Buffered() > 0 {
				flights.Add(1)
			}
			said = answer(strings.TrimSpace(line))
			if strings.HasPrefix(said, "354") {
				fmt.Fprintf(c, "%s\r\n", said)
				for line != ".\r\n" {
					if line, err = r.ReadString('\n'); err != nil {
						return
					}
				}
				said = answer(".")
			}
		}
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return l.Addr().String(), flights
}

func ok(line string) string {
	switch line {
	case "":
		return "220 plain.test"
	case "DATA":
		return "354 go on"
	default:
		return "250 ok"
	}
}

func send(t *testing.T, address string, spec load.Spec) (load.Result, ledger.Audit) {
	t.Helper()
	spec.Address, spec.Connections, spec.Size, spec.Time = address, 1, 100, time.Minute
	if spec.PerConn == 0 {
		spec.PerConn = 100
	}
	l := ledger.New("run1", 10)
	res, err := load.Run(context.Background(), spec, l)
	if err != nil {
		t.Fatal(err)
	}
	return res, l.Audit()
}

func TestAServerWithoutPipeliningIsAskedOneByOne(t *testing.T) {
	address, flights := plainServer(t, ok)
	_, a := send(t, address, load.Spec{Recipients: 2, Messages: 3})
	if a.Accepted != 3 || flights.Load() != 0 {
		t.Errorf("%d accepted, and %d commands came with others", a.Accepted, flights.Load())
	}
	address, flights = plainServer(t, func(line string) string {
		if strings.HasPrefix(line, "EHLO") {
			return "250-plain.test\r\n250 PIPELINING"
		}
		return ok(line)
	})
	_, a = send(t, address, load.Spec{Recipients: 2, Messages: 3})
	if a.Accepted != 3 || flights.Load() == 0 {
		t.Errorf("pipelining: %d accepted, and %d commands came with others", a.Accepted, flights.Load())
	}
}

func TestRefusalsAreCounted(t *testing.T) {
	tests := map[string]struct {
		at, answer       string
		temp, perm, lost int
	}{
		"greeting":    {"", "421 busy", 3, 0, 0},
		"sender":      {"MAIL FROM:<bench@src.test>", "550 no", 0, 3, 0},
		"recipient":   {"RCPT TO:<r1@sink.test>", "452 full", 3, 0, 0},
		"data":        {"DATA", "554 no", 0, 3, 0},
		"dot":         {".", "451 later", 3, 0, 0},
		"hangs up":    {".", "", 0, 0, 3},
		"talks Greek": {".", "καλημέρα", 0, 0, 3},
	}
	for name, test := range tests {
		address, _ := plainServer(t, func(line string) string {
			if line == test.at {
				return test.answer
			}
			return ok(line)
		})
		res, a := send(t, address, load.Spec{Recipients: 2, Messages: 3})
		if res.TempFail != test.temp || res.PermFail != test.perm || res.Broken != test.lost || a.Accepted != 0 || a.Begun != 3 {
			t.Errorf("%s: %+v; %d accepted of %d", name, res, a.Accepted, a.Begun)
		}
		if test.answer != "" && !strings.Contains(res.Sample, test.answer[:3]) && test.lost == 0 {
			t.Errorf("%s: the sample is %q", name, res.Sample)
		}
	}
}

func TestTheLoadEnds(t *testing.T) {
	address, _ := plainServer(t, ok)
	l := ledger.New("run1", 5)
	spec := load.Spec{Address: address, Connections: 2, PerConn: 1, Size: 10, Recipients: 1, Time: time.Minute}
	if _, err := load.Run(context.Background(), spec, l); err != nil || l.Accepted() != 5 {
		t.Errorf("a full ledger: %v, %d accepted", err, l.Accepted())
	}
	l = ledger.New("run2", 5)
	spec.Time = 0
	if _, err := load.Run(context.Background(), spec, l); err != nil || l.Accepted() != 0 {
		t.Errorf("no time: %v, %d accepted", err, l.Accepted())
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	spec.Time = time.Minute
	if _, err := load.Run(cancelled, spec, l); err != nil || l.Accepted() != 0 {
		t.Errorf("cancelled: %v, %d accepted", err, l.Accepted())
	}
	for _, n := range []int{0, ledger.MaxRecipients + 1} {
		spec.Recipients = n
		if _, err := load.Run(context.Background(), spec, l); err == nil {
			t.Errorf("%d recipients are no error", n)
		}
	}
}
