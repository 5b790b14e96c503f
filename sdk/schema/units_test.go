package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"
)

func TestParseSize(t *testing.T) {
	for in, want := range map[string]Size{
		"0": 0, "1000": 1000, "1B": 1, "1kB": 1000, "1KB": 1000, "2KiB": 2048, "35MiB": 35 << 20, "35mib": 35 << 20, "35 MiB": 35 << 20,
		"1GB": 1e9, "4TiB": 4 << 40, "9223372036854775807": math.MaxInt64, "8388607TiB": 8388607 << 40,
	} {
		got, err := ParseSize(in)
		if err != nil || got != want {
			t.Errorf("%q: %d, %v", in, got, err)
		}
		if back, err := ParseSize(got.String()); err != nil || back != got {
			t.Errorf("%q prints as %q: %v", in, got, err)
		}
	}
	for _, in := range []string{
		"", " ", "MiB", "-1", "+1", "1.5GiB", "1e3", "5M", "5 parsecs", "1GiBB", "0x10", "1_000", "1  KB", " 1", "1 ",
		"9223372036854775808", "8388608TiB", "99999999999999999999MB", "１KB",
	} {
		if got, err := ParseSize(in); err == nil {
			t.Errorf("%q was taken as %d", in, got)
		}
	}
	if b, err := json.Marshal(Size(35 << 20)); err != nil || string(b) != `"35MiB"` {
		t.Errorf("%s, %v", b, err)
	}
	var s Size
	if err := json.Unmarshal([]byte(`"1GB"`), &s); err != nil || s != 1e9 {
		t.Errorf("%d, %v", s, err)
	}
}

func TestParseDuration(t *testing.T) {
	const day = 24 * time.Hour
	for in, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "30s": 30 * time.Second, "1h30m": 90 * time.Minute, "1.5h": 90 * time.Minute, "250ms": 250 * time.Millisecond,
		"5d": 5 * day, "1d12h": 36 * time.Hour, "2w": 14 * day, "1w1d1s": 8*day + time.Second, "0d": 0,
	} {
		if got, err := ParseDuration(in); err != nil || got != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{
		"", "5", "d", "w", "-5m", "-1d", "1d-5m", "1.5d", "1d2w", "1d1d", "5 m", "5mm", "1e3s", "5m ", "999999999d", "106751d24h", "15250w2d", "99999999999w",
	} {
		if got, err := ParseDuration(in); err == nil {
			t.Errorf("%q was taken as %v", in, got)
		}
	}
}

func TestSecretNeverPrints(t *testing.T) {
	s := Secret("hunter2")
	var out bytes.Buffer
	for _, verb := range []string{"v", "+v", "#v", "s", "q", "x", "X", "d", "T", "10s", "U"} {
		if verb != "T" {
			fmt.Fprintf(&out, "%"+verb+" ", s)
			fmt.Fprintf(&out, "%"+verb+" ", &s)
		}
		fmt.Fprintf(&out, "%"+verb+" ", struct{ S Secret }{s})
		fmt.Fprintf(&out, "%"+verb+" ", []Secret{s})
		fmt.Fprintf(&out, "%"+verb+" ", map[Secret]Secret{s: s})
	}
	for _, v := range []any{s, &s, struct{ S Secret }{s}, map[string]Secret{"k": s}} {
		if err := json.NewEncoder(&out).Encode(v); err != nil {
			t.Error(err)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "key", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "key", v)
	}
	for _, leak := range []string{"hunter2", "68756e74657232", "68756E74657232"} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("printed %s:\n%s", leak, out.String())
		}
	}
	if string(s) != "hunter2" {
		t.Error("the text itself is lost")
	}
}

func FuzzParseUnits(f *testing.F) {
	for _, s := range []string{"35MiB", "1d12h", "5m", "9223372036854775807", "2w", "-1", "1.5h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		if n, err := ParseSize(in); err == nil {
			if back, err := ParseSize(n.String()); n < 0 || err != nil || back != n {
				t.Errorf("%q: %d prints as %q: %d, %v", in, n, n, back, err)
			}
		}
		if d, err := ParseDuration(in); err == nil {
			if back, err := ParseDuration(d.String()); d < 0 || err != nil || back != d {
				t.Errorf("%q: %v: %v, %v", in, d, back, err)
			}
		}
	})
}
