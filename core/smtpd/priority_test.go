package smtpd

import (
	"fmt"
	"strings"
	"testing"
)

// TestPriority: MT-PRIORITY of MAIL reaches the queue and the Received field; who may not relay can only lower it, and is told.
func TestPriority(t *testing.T) {
	for _, trusted := range []bool{false, true} {
		in(t, func(c *Config, d *Deps) {
			if trusted {
				options["trusted"](c, d)
			}
		}, func(t *testing.T, r *rig) {
			c := r.dial()
			c.say("EHLO c.example\r\n")
			for _, tt := range []struct {
				params string
				want   int8
			}{
				{"", 0}, {" MT-PRIORITY=0", 0}, {" MT-PRIORITY=-9", -9}, {" mt-priority=-3 SIZE=20", -3}, {" SIZE=20  MT-PRIORITY=9 BODY=8BITMIME", 9}, {" MT-PRIORITY=1", 1},
			} {
				if got := c.say("MAIL FROM:<a@c.example>" + tt.params + "\r\n"); !strings.HasPrefix(got, "250") {
					t.Fatalf("%q: %s", tt.params, got)
				}
				lowered := tt.want > 0 && !trusted
				if lowered {
					tt.want = 0
				}
				c.say("RCPT TO:<ann@ours.example>\r\n")
				c.say("DATA\r\n")
				got := c.say("Subject: x\r\n\r\nx\r\n.\r\n")
				if said := strings.HasPrefix(got, "250 2.3.6 0 "); said != lowered || !strings.HasPrefix(got, "250 ") {
					t.Errorf("%q, trusted %t: %s", tt.params, trusted, got)
				}
				for _, m := range r.take() {
					field := fmt.Sprintf("\r\n\tpriority %d;", tt.want)
					if m.Envelope.Priority != tt.want || strings.Contains(m.top, field) != (tt.want != 0) || m.Client.Helo != "c.example" {
						t.Errorf("%q, trusted %t: priority %d, %q", tt.params, trusted, m.Envelope.Priority, m.top)
					}
				}
			}
			for _, bad := range []string{"=10", "=-10", "=", "", "=x", "=+1", "=01", "=-0", "=300", "=1 MT-PRIORITY=1"} {
				if got := c.say("MAIL FROM:<a@c.example> MT-PRIORITY" + bad + "\r\n"); !strings.HasPrefix(got, "501 5.5.4") {
					t.Errorf("%q: %s", bad, got)
				}
			}
			c.say("MAIL FROM:<a@c.example>\r\n")
			if got := c.say("RCPT TO:<ann@ours.example> MT-PRIORITY=1\r\n"); got[0] != '5' {
				t.Errorf("at RCPT: %s", got)
			}
		})
	}
}
