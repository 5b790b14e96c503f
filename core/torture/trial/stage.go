package trial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pabal-mta/mta/core/torture/ledger"
	"github.com/pabal-mta/mta/core/torture/peer"
)

// stage is a home with a server in it, and the sinks that it delivers to.
type stage struct {
	out    io.Writer
	settle time.Duration // how long the queue may make no progress before an audit
	server *Server
	sinks  [2]*peer.Sink
	at     [2]string    // their addresses
	next   atomic.Int64 // the number of the last message
	putOff atomic.Bool  // the sinks put off what is to come later
}

// open makes the home and the sinks, which cut where they are told to.
func open(program Program, address string, settle time.Duration, out io.Writer, cuts ...func() peer.Step) (*stage, error) {
	dir, err := os.MkdirTemp("", "mta-torture-") // short: the paths of sockets have at most 108 bytes
	if err != nil {
		return nil, err
	}
	if settle == 0 {
		settle = Patience
	}
	s := &stage{out: out, settle: settle, server: &Server{Program: program, Dir: dir, Address: address}}
	for i := range s.sinks {
		l, err := listen()
		if err != nil {
			s.close(true)
			return nil, err
		}
		s.at[i] = l.Addr().String()
		s.sinks[i] = &peer.Sink{Offers: "8BITMIME", Refuse: s.refusal, Cut: cuts[i]}
		s.sinks[i].Serve(l)
	}
	return s, nil
}

func (s *stage) configure(dataDir, minFree string) error {
	return s.server.Configure(Settings{DataDir: dataDir, MinFree: minFree, One: s.at[0], Two: s.at[1]})
}

// close ends everything. The home is left when something was not well, unless nobody would hear of it.
func (s *stage) close(well bool) {
	if err := s.server.Kill(context.Background()); err != nil {
		fmt.Fprintln(s.out, err)
	}
	for _, k := range s.sinks {
		if k != nil {
			k.Close()
		}
	}
	if well || s.out == io.Discard {
		os.RemoveAll(s.server.Dir)
		return
	}
	fmt.Fprintf(s.out, "the home is left in %s; the log ends with\n%s\n", s.server.Dir, s.server.Log())
}

// connections is how many there are to the sinks.
func (s *stage) connections() (n int) {
	for _, k := range s.sinks {
		n += k.Open()
	}
	return n
}

// cutter decides where a sink cuts: at a share of the messages, at any step.
func cutter(seed, stream uint64, share float64) func() peer.Step {
	var mu sync.Mutex
	chance := rand.New(rand.NewPCG(seed, stream))
	return func() peer.Step {
		mu.Lock()
		defer mu.Unlock()
		if chance.Float64() >= share {
			return peer.Never
		}
		return peer.Step(1 + chance.IntN(int(peer.Steps)-1))
	}
}

// refusal is what the sinks say to a recipient.
func (s *stage) refusal(to string) string {
	if strings.HasPrefix(to, later) && !s.putOff.Load() {
		return ""
	}
	return refusal(to)
}

// begin opens a new ledger, into which the server's word goes too, and has the sinks put off what is to come later.
func (s *stage) begin() *ledger.Ledger {
	s.putOff.Store(true)
	book := ledger.New()
	s.server.Done = func(queue string) { book.Done(queue, time.Now()) }
	return book
}

// end lets the server deliver everything, and audits.
func (s *stage) end(ctx context.Context, book *ledger.Ledger) (v ledger.Verdict, err error) {
	s.putOff.Store(false)
	if err := s.drain(ctx, book); err != nil {
		return v, err
	}
	for _, k := range s.sinks {
		book.Arrive(classify(k.Forget())...)
	}
	if v = book.Audit(); v.Acked == 0 {
		return v, errors.New("nothing was acknowledged: there was no load")
	}
	return v, nil
}

// drain waits until the queue is empty. What is still there when it makes no progress any more is noted as queued.
func (s *stage) drain(ctx context.Context, book *ledger.Ledger) error {
	left, since := -1, time.Now()
	for time.Since(since) < s.settle {
		st, err := s.server.Status(ctx)
		if err != nil {
			return fmt.Errorf("the server does not answer: %w; its log ends with\n%s", err, s.server.Log())
		}
		n := st.Queue.Waiting + st.Queue.Active + st.Queue.Held
		if n == 0 {
			return nil
		}
		if n != left {
			left, since = n, time.Now()
		}
		pause(ctx, 20*time.Millisecond)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	list, err := s.server.Queued(ctx)
	for _, m := range list {
		var n int
		if _, err := fmt.Sscanf(m.From, "m%d@back.example", &n); err == nil {
			book.Queued(fmt.Sprint(n))
		}
	}
	return err
}

// Build builds the server program from the module that this process was built from.
func Build(ctx context.Context, module, to string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"build", "-o", to}, args...), "./cmd/mta")...)
	cmd.Dir = module
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
	}
	return nil
}

// Module finds the folder of the module's go.mod at or above dir.
func Module(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("%s is not within a Go module: run this from a clone", dir)
		}
	}
}
