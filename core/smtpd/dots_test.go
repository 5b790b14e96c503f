package smtpd

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

// gathered is a sink that keeps everything.
type gathered struct {
	text         []byte
	crlf, bareLF int
}

func (g *gathered) add(p []byte, crlf, bareLF int) {
	g.text = append(g.text, p...)
	g.crlf += crlf
	g.bareLF += bareLF
}

// undot states the rule of RFC 5321, 4.5.2 as simply as can be: lines are parted by CRLF; the first that is "." ends the
// body; one that begins with a dot loses it.
func undot(src string) (text string, used int, end bool) {
	for rest := src; ; {
		line, after, ok := strings.Cut(rest, "\r\n")
		if !ok {
			return text, 0, false
		}
		rest = after
		if line == "." {
			return text, len(src) - len(rest), true
		}
		text += strings.TrimPrefix(line, ".") + "\r\n"
	}
}

// feedAll feeds src in pieces of the given sizes, as the edge does.
func feedAll(src []byte, size func() int) (g gathered, used int, end bool) {
	d := dots{sink: &g}
	var buf []byte
	for at := 0; ; {
		n, end := d.feed(buf)
		used += n
		buf = buf[n:]
		if end || at == len(src) {
			return g, used, end
		}
		if len(buf) > 2 {
			panic("more than two octets are held back")
		}
		next := min(at+size(), len(src))
		buf = append(bytes.Clone(buf), src[at:next]...)
		at = next
	}
}

func checkDots(t *testing.T, src string, size func() int) {
	t.Helper()
	text, used, end := undot(src)
	g, gotUsed, gotEnd := feedAll([]byte(src), size)
	if gotEnd != end {
		t.Fatalf("%q: end %v, want %v", src, gotEnd, end)
	}
	if !end {
		return
	}
	if gotUsed != used || string(g.text) != text {
		t.Fatalf("%q: %d octets used for %q, want %d for %q", src, gotUsed, g.text, used, text)
	}
	crlf := strings.Count(text, "\r\n")
	if bare := strings.Count(text, "\n") - crlf; g.crlf != crlf || g.bareLF != bare {
		t.Fatalf("%q: counted %d CRLF and %d LF, want %d and %d", src, g.crlf, g.bareLF, crlf, bare)
	}
}

// TestDotsAgainstRule compares the reader with the rule on all short inputs of the octets that matter.
func TestDotsAgainstRule(t *testing.T) {
	const octets = "\r\n.x"
	for length := range 8 {
		total := 1 << (2 * length)
		for i := range total {
			src := make([]byte, length, length+5)
			for j := range length {
				src[j] = octets[i>>(2*j)&3]
			}
			input := string(src) + "\r\n.\r\n"
			checkDots(t, input, func() int { return 1 })
			checkDots(t, input, func() int { return len(input) })
			checkDots(t, input, func() int { return 3 })
		}
	}
}

func FuzzDots(f *testing.F) {
	for _, row := range ends {
		f.Add("body"+row.seq+tail, uint64(1))
	}
	f.Fuzz(func(t *testing.T, src string, seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		checkDots(t, src, func() int { return 1 + rnd.IntN(9) })
	})
}

func TestNormalized(t *testing.T) {
	for in, want := range map[string]string{
		"a\nb":         "a\r\nb",
		"a\r\nb":       "a\r\nb",
		"a\rb":         "a b",
		"\n\n":         "\r\n\r\n",
		"\r\r\n":       " \r\n",
		"a\n.\r\nb":    "a\r\n.\r\nb",
		"\r":           " ",
		"\n\r\n":       "\r\n\r\n",
		"no line ends": "no line ends",
	} {
		if got := string(normalized([]byte(in))); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func TestHas8Bit(t *testing.T) {
	p := bytes.Repeat([]byte("x"), 100)
	if has8Bit(p) {
		t.Error("found an octet that is not there")
	}
	for i := range p {
		p[i] = 0x80
		if !has8Bit(p) {
			t.Errorf("overlooked the octet at %d", i)
		}
		p[i] = 'x'
	}
}

// TestBodyChunks checks that however a body is cut into chunks, the same comes of it.
func TestBodyChunks(t *testing.T) {
	const text = "a: b\r\n\r\nx\r\n\r\ny\r\n"
	for size := 1; size < len(text); size++ {
		b := &body{budget: NewBudget(1 << 20), max: 100}
		for at := 0; at < len(text); at += size {
			b.addChunk([]byte(text[at:min(at+size, len(text))]))
		}
		b.endChunks()
		if b.refusal != nil || string(b.mem[headroom:]) != text {
			t.Errorf("chunks of %d became %q, %v", size, b.mem[headroom:], b.refusal)
		}
	}
}

// TestBodyStorage follows bodies of several sizes from memory into a file and back through what stands under our fields.
func TestBodyStorage(t *testing.T) {
	for _, size := range []int{0, 2, 100, firstRoom, maxMemory - 2, maxMemory, maxMemory + 2, 3 << 20} {
		for _, budget := range []int64{0, 10 << 10, 1 << 30} {
			b := &body{budget: NewBudget(budget), dir: t.TempDir(), max: 1 << 30}
			want := bytes.Repeat([]byte("0123456789abcde\n"), size/16+1)[:size]
			for at := 0; at < size; at += 1000 {
				b.keep(want[at:min(at+1000, size)])
			}
			c, err := b.under([]byte("top\r\n"))
			if err != nil || b.refusal != nil {
				t.Fatalf("%d bytes, budget %d: %v, %v", size, budget, err, b.refusal)
			}
			got, err := io.ReadAll(mail.Reader(c))
			if err != nil || string(got) != "top\r\n"+string(want) {
				t.Errorf("%d bytes, budget %d: %d bytes came back, %v", size, budget, len(got), err)
			}
			if inFile := size > maxMemory || budget == 0 && size > 0; budget != 10<<10 && inFile != (b.file != nil) {
				t.Errorf("%d bytes, budget %d: in a file: %v", size, budget, b.file != nil)
			}
			b.release()
			if left := b.budget.left.Load(); left != budget {
				t.Errorf("%d bytes: %d of the budget of %d is left", size, left, budget)
			}
		}
	}
}

// FuzzServer sends whatever it is given to a server and checks that it survives, and that no message is queued unless
// there is an end of data or a last chunk in what was sent.
func FuzzServer(f *testing.F) {
	const start = "EHLO c\r\nMAIL FROM:<a@c.example>\r\nRCPT TO:<ann@ours.example>\r\n"
	for _, row := range ends {
		f.Add([]byte(start + "DATA\r\nSubject: x\r\n\r\nbody" + row.seq + tail))
	}
	f.Add([]byte(start + "BDAT 5\r\nx: y\rBDAT 1 LAST\r\n\nQUIT\r\n"))
	f.Add([]byte(start + "BDAT 99 LAST\r\nshort"))
	f.Add([]byte("EHLO c\r\nAUTH PLAIN AGFubkBvdXJzLmV4YW1wbGUAcmlnaHQ=\r\nAUTH LOGIN\r\n*\r\nSTARTTLS\r\n"))
	f.Add([]byte("LHLO c\r\nRSET\r\nVRFY x\r\nHELP\r\nGET / HTTP/1.0\r\n"))
	f.Fuzz(func(t *testing.T, input []byte) {
		queued := 0
		s, err := New(Config{
			Hostname: "mx.ours.example", InsecureAuth: true, TLS: certificate(), SpoolDir: t.TempDir(),
			Limits: Limits{AuthDelay: time.Microsecond, CommandTimeout: time.Second, DataTimeout: time.Second},
		}, Deps{Policy: policy{}, Authenticator: users{}, Queue: func(_ context.Context, a *Accepted) (string, error) {
			queued++
			a.Release()
			return "Q", nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		l := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		here, there := net.Pipe()
		l.conns <- there
		go func() {
			here.Write(input)
			here.Close()
		}()
		io.Copy(io.Discard, here)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Fatalf("Shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Fatalf("Serve: %v", err)
		}
		ends := bytes.Count(input, []byte("\r\n.\r\n")) + bytes.Count(bytes.ToUpper(input), []byte("LAST"))
		if queued > ends {
			t.Fatalf("%d messages of %d ends", queued, ends)
		}
	})
}
