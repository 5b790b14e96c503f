package peer

import (
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

func serve(t *testing.T, k *Sink) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k.Serve(l)
	t.Cleanup(k.Close)
	return l.Addr().String()
}

const body = ".a line\r\n..\r\n.\r\nthe end\r\n"

// TestSinkCutsWhereItIsTold sends a message to a sink that cuts once at a step, and another afterwards.
func TestSinkCutsWhereItIsTold(t *testing.T) {
	for step := Never; step < Steps; step++ {
		t.Run(step.String(), func(t *testing.T) {
			var asked atomic.Int64
			k := &Sink{Cut: func() Step {
				if asked.Add(1) == 1 {
					return step
				}
				return Never
			}}
			address := serve(t, k)
			send := func(id string) error {
				c, err := Dial(address, time.Minute)
				if err != nil {
					return err
				}
				defer c.Close()
				return c.Send("<carol@sender.example>", "ann@one.example", Numbered(id, []byte(body)))
			}
			if err := send("1"); (err == nil) != (step == Never) {
				t.Errorf("the first: %v", err)
			}
			if err := send("2"); err != nil {
				t.Errorf("the second: %v", err)
			}
			k.Close()
			got, _ := k.Arrivals()
			want := 1
			if step == Never || step >= AfterTaking {
				want = 2
			}
			if len(got) != want || got[want-1].ID != "2" || got[0].Sum != Sum([]byte(body)) {
				t.Fatalf("%+v", got)
			}
			if got[0].Cut != (step >= AfterTaking) {
				t.Errorf("cut: %v", got[0].Cut)
			}
			if n := k.Cuts(); step != Never && n[step] != 1 || n[Never] != 0 {
				t.Errorf("cuts: %v", n)
			}
		})
	}
}

func TestSinkKnowsAMessageAgain(t *testing.T) {
	raw := "Received: from client.example ([127.0.0.1])\r\n\tby relay.example with ESMTP id ABC123\r\n\tfor <ann@one.example>;\r\n\tThu, 1 Jan 2026 12:00:00 +0000\r\n" +
		string(Numbered("77", []byte(body)))
	a := Read([]byte(raw))
	if a.ID != "77" || a.Queue != "ABC123" || a.Sum != Sum([]byte(body)) {
		t.Errorf("%+v", a)
	}
	if a := Read([]byte("no field\r\nat all")); a.ID != "" || a.Queue != "" || a.Sum != Sum(nil) {
		t.Errorf("%+v", a)
	}
}

func TestSinkRefusesRecipients(t *testing.T) {
	k := &Sink{Offers: "8BITMIME SIZE", Refuse: func(to string) string {
		if to == "nobody@one.example" {
			return "550 5.1.1 nobody here"
		}
		return ""
	}}
	c, err := Dial(serve(t, k), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Caps != "250 8BITMIME\nSIZE\nPIPELINING" {
		t.Errorf("%q", c.Caps)
	}
	if err := c.Envelope("<a@sender.example>", "nobody@one.example"); err == nil {
		t.Error("nobody was taken")
	}
	if err := c.Send("<a@sender.example>", "ann@one.example", Numbered("1", []byte(body))); err != nil {
		t.Error(err)
	}
	got, n := k.Arrivals()
	if len(got) != 1 || got[0].To != "ann@one.example" || n != 1 || k.Open() != 1 {
		t.Errorf("%+v over %d", got, n)
	}
	if !slices.Equal(got, k.Forget()) || k.Forget() != nil {
		t.Error("it forgets otherwise")
	}
}
