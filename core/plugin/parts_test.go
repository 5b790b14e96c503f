package plugin

import (
	"bufio"
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
)

func TestBreakerPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b breaker
		fail := func(n int) {
			for range n {
				if b.allow() {
					b.note(true)
				}
			}
		}
		fail(breakerLimit - 1)
		b.note(false) // one success, and the count begins anew
		fail(breakerLimit - 1)
		if !b.allow() {
			t.Fatal("open too early")
		}
		b.note(true)
		for _, pause := range []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second, time.Minute, time.Minute} {
			if b.allow() || b.state() != "open" {
				t.Fatal("not open")
			}
			time.Sleep(pause - time.Nanosecond)
			if b.allow() {
				t.Fatalf("a call before %v were over", pause)
			}
			time.Sleep(time.Nanosecond)
			if b.state() != "half-open" || !b.allow() || b.allow() {
				t.Fatalf("after %v: exactly one call is a probe", pause)
			}
			b.note(true)
		}
		time.Sleep(time.Minute)
		if !b.allow() {
			t.Fatal("no probe")
		}
		b.forget() // its caller went away
		if !b.allow() {
			t.Fatal("no second probe")
		}
		b.note(false)
		if b.state() != "closed" || !b.allow() || !b.allow() {
			t.Error("a success did not close it")
		}
	})
}

func TestPause(t *testing.T) {
	p := newWorker(&Plugin{}, nil)
	for failed, limit := range map[int]time.Duration{0: backoffMin, 1: backoffMin, 2: 2 * backoffMin, 5: 16 * backoffMin, 9: 25600 * time.Millisecond, 10: backoffMax, 1000: backoffMax} {
		p.failed = failed
		longest := time.Duration(0)
		for range 1000 {
			longest = max(longest, p.pause())
		}
		if longest > limit || longest < limit*9/10 {
			t.Errorf("after %d short lives the longest of 1000 pauses is %v, the limit %v", failed, longest, limit)
		}
	}
}

func TestOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		o := newOutput(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
		lines := func(stream, s string) string {
			log.Reset()
			o.read(bufio.NewReaderSize(strings.NewReader(s), maxLine), stream)
			return log.String()
		}
		for in, want := range map[string]string{
			`{"@level":"warn","@message":"slow","@module":"m","n":3}`: "level=WARN msg=slow n=3",
			`{"@level":"x","@message":"a\u001b[31mb"}`:                `msg="a [31mb"`,
			`{"not": "ours"}`:                     "level=INFO",
			"panic: boom":                         "level=ERROR",
			"\x1b]0;title\x07 \xff":               "]0;title",
			strings.Repeat("x", 3*maxLine) + "\n": "cut=true",
		} {
			if got := lines("stderr", in); !strings.Contains(got, want) || strings.ContainsAny(got, "\x1b\x07") || len(got) > maxLine+200 {
				t.Errorf("%.60q became %.200q", in, got)
			}
		}
		if got := lines("stdout", "hello"); !strings.Contains(got, "level=WARN") || !strings.Contains(got, "stream=stdout") {
			t.Error(got)
		}
		time.Sleep(time.Minute)
		if got := strings.Count(lines("stderr", strings.Repeat("flood\n", 10*logBurst)), "msg=flood"); got != logBurst {
			t.Errorf("%d lines at once", got)
		}
		time.Sleep(time.Second)
		if got := lines("stderr", "after\n"); !strings.Contains(got, "lines_dropped=4500") {
			t.Error(got)
		}
		if tail := o.tail(); len(tail) != lastLines || tail[lastLines-1] != "after" {
			t.Error(tail)
		}
	})
}

func FuzzLine(f *testing.F) {
	f.Add("stderr", `{"@level":"info","@message":"x","k":[1,{"a":null}]}`)
	f.Add("stdout", "panic: \x00\xff")
	o := newOutput(slog.New(slog.DiscardHandler))
	f.Fuzz(func(t *testing.T, stream, line string) {
		o.line(stream, line, false)
		if _, msg, _ := parseLine(stream, calls.Printable(line)); strings.ContainsAny(msg, "\r\n\x00\x1b") {
			t.Errorf("%q", msg)
		}
	})
}

func TestRooms(t *testing.T) {
	run, err := os.MkdirTemp("", "mta")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(run)
	if err := os.Chmod(run, 0o755); err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(run, "room-dead", "plugin-dir1")
	if err := os.MkdirAll(dead, 0o700); err != nil {
		t.Fatal(err)
	}
	one, err := newRoom(run, nil)
	if err != nil {
		t.Fatal(err)
	}
	two, err := newRoom(run, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Error("a dead server's room is still there")
	}
	if info, err := os.Stat(run); err != nil || info.Mode().Perm() != 0o700 {
		t.Error("others may enter the run directory")
	}
	if _, err := os.Stat(one.dir); err != nil {
		t.Error("a living server's room was swept:", err)
	}
	one.close()
	two.close()
	if left, _ := filepath.Glob(filepath.Join(run, "room-*")); len(left) > 0 {
		t.Error(left)
	}
	long := filepath.Join(run, strings.Repeat("x", maxRunDir))
	r, err := newRoom(long, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	if strings.HasPrefix(r.dir, long) {
		t.Error("a socket below this path would have too long a name:", r.dir)
	}
}

func TestOwners(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "p")
	if err := os.WriteFile(path, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := checkOwners(path); err != nil {
		t.Error(err)
	}
	for _, target := range []string{path, dir} {
		if err := os.Chmod(target, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := checkOwners(path); err == nil {
			t.Errorf("anybody may write to %s", target)
		}
		if err := os.Chmod(target, 0o700); err != nil {
			t.Fatal(err)
		}
	}
}
