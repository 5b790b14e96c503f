package plugin

import (
	"bytes"
	"context"
	encoding "encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
)

// floorSize is what a call at stage rcpt has on the wire, about.
const floorSize = 180

// beFloor sends back what it reads, as much at once as there is.
func beFloor() {
	c := inherited()
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

// inherited is the socket that a process was started with.
func inherited() *net.UnixConn {
	c, err := net.FileConn(os.NewFile(3, "socket"))
	if err != nil {
		panic(err)
	}
	return c.(*net.UnixConn)
}

// other starts this program as another process with a socket to it.
func other(b *testing.B, mode string) (*net.UnixConn, *os.Process) {
	b.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()
	c, err := net.FileConn(ours)
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env, cmd.ExtraFiles, cmd.Stderr = append(os.Environ(), "MODE="+mode), []*os.File{theirs}, os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		c.Close()
		_ = cmd.Wait()
	})
	return c.(*net.UnixConn), cmd.Process
}

// floor is the client of beFloor: what waits together travels together, and that is all that it has of ours.
type floor struct {
	conn    *net.UnixConn
	wake    chan struct{}
	mu      sync.Mutex
	out     []byte
	answers []chan struct{} // by caller
}

func (f *floor) call(caller int) {
	var request [floorSize]byte
	encoding.LittleEndian.PutUint64(request[:], uint64(caller))
	f.mu.Lock()
	f.out = append(f.out, request[:]...)
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
	<-f.answers[caller]
}

func (f *floor) send() {
	var spare []byte
	for range f.wake {
		f.mu.Lock()
		batch := f.out
		f.out = spare[:0]
		f.mu.Unlock()
		if _, err := f.conn.Write(batch); err != nil {
			return
		}
		spare = batch
	}
}

func (f *floor) receive() {
	r := make([]byte, 64*floorSize)
	for have := 0; ; {
		n, err := f.conn.Read(r[have:])
		if err != nil {
			return
		}
		have += n
		whole := have / floorSize * floorSize
		for at := 0; at < whole; at += floorSize {
			f.answers[encoding.LittleEndian.Uint64(r[at:])] <- struct{}{}
		}
		have = copy(r, r[whole:have])
	}
}

// BenchmarkFloor is what a call can't cost less than: two processes that send 180 bytes over a socket and back, without gRPC,
// protobuf, contexts or time-outs. BenchmarkCalls beside it is what ours costs.
func BenchmarkFloor(b *testing.B) {
	for _, callers := range []int{1, 20, 64} {
		b.Run(strconv.Itoa(callers), func(b *testing.B) {
			conn, process := other(b, "floor")
			f := &floor{conn: conn, wake: make(chan struct{}, 1), answers: make([]chan struct{}, callers)}
			for i := range f.answers {
				f.answers[i] = make(chan struct{}, 1)
			}
			go f.send()
			go f.receive()
			defer close(f.wake)
			measured(b, process.Pid, callers, func(caller int) error {
				f.call(caller)
				return nil
			})
		})
	}
}

// measured makes b.N calls, divided among callers, and reports how many a second there were and what they cost both processes.
func measured(b *testing.B, pid, callers int, call func(caller int) error) {
	b.Helper()
	var wg sync.WaitGroup
	ours, theirs := cpu(b, 0), cpu(b, pid)
	b.ResetTimer()
	for caller := range callers {
		wg.Go(func() {
			for range b.N/callers + min(1, max(0, b.N%callers-caller)) {
				if err := call(caller); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
	b.ReportMetric(float64((cpu(b, 0)-ours).Nanoseconds())/float64(b.N), "host-cpu-ns/op")
	b.ReportMetric(float64((cpu(b, pid)-theirs).Nanoseconds())/float64(b.N), "plugin-cpu-ns/op")
}

// contentReader is a filter that reads what it is given.
type contentReader struct{}

func beReader() {
	sdk.Serve(sdk.Plugin[struct{}]{Name: "reader", Version: "1", New: func(context.Context, struct{}, sdk.Host) (any, error) { return contentReader{}, nil }})
}

func (contentReader) Message(_ context.Context, _ *mail.Session, m *mail.Message) (mail.Verdict, error) {
	_, err := io.Copy(io.Discard, mail.Reader(m.Content))
	return mail.Continue(), err
}

// beTaker reads all of each file whose descriptor it is sent, and says so with a byte.
func beTaker() {
	c := inherited()
	word, rights := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	for {
		n, oobn, _, _, err := c.ReadMsgUnix(word, rights)
		if err != nil || n == 0 {
			return
		}
		list, err := unix.ParseSocketControlMessage(rights[:oobn])
		if err != nil {
			panic(err)
		}
		fds, err := unix.ParseUnixRights(&list[0])
		if err != nil {
			panic(err)
		}
		f := os.NewFile(uintptr(fds[0]), "body")
		if _, err := io.Copy(io.Discard, struct{ io.Reader }{io.NewSectionReader(f, 0, 1<<40)}); err != nil {
			panic(err)
		}
		f.Close()
		if _, err := c.Write(word); err != nil {
			return
		}
	}
}

// pass sends a file's descriptor and waits until the other has read it.
func pass(c *net.UnixConn, f *os.File) error {
	if _, _, err := c.WriteMsgUnix([]byte{1}, unix.UnixRights(int(f.Fd())), nil); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 1))
	return err
}

func inMemory(b *testing.B, content []byte) *os.File {
	b.Helper()
	fd, err := unix.MemfdCreate("body", unix.MFD_CLOEXEC)
	if err != nil {
		b.Skip(err)
	}
	f := os.NewFile(uintptr(fd), "body")
	if _, err := f.Write(content); err != nil {
		b.Fatal(err)
	}
	return f
}

// BenchmarkPassing hands a message to another process that reads it: as ours does, over gRPC; and as the bare descriptor of a
// file in memory, which has to be filled first, or which another process has been given already.
func BenchmarkPassing(b *testing.B) {
	for _, size := range []int{128 << 10, 1 << 20, 10 << 20} {
		content := append([]byte("Subject: large\r\n\r\n"), bytes.Repeat([]byte("0123456789abcde\n"), size/16)...)
		kib := strconv.Itoa(size >> 10)
		b.Run("plugin/"+kib, func(b *testing.B) { benchPlugin(b, content) })
		b.Run("descriptor/"+kib, func(b *testing.B) {
			benchPass(b, content, func(c *net.UnixConn, _ *os.File) error {
				f := inMemory(b, content)
				defer f.Close()
				return pass(c, f)
			})
		})
		b.Run("descriptor-again/"+kib, func(b *testing.B) { benchPass(b, content, pass) })
	}
}

func benchPlugin(b *testing.B, content []byte) {
	b.SetBytes(int64(len(content)))
	p := start(b, spec(b, "reader"))
	measured(b, p.Status().PID, 1, func(int) error {
		v, err := p.Message(b.Context(), &mail.Session{ID: "s"}, &mail.Message{ID: "m", Content: mail.Bytes(content)})
		if err == nil && v.Action != mail.ActionContinue {
			err = fmt.Errorf("%v", v)
		}
		return err
	})
}

func benchPass(b *testing.B, content []byte, pass func(c *net.UnixConn, kept *os.File) error) {
	b.SetBytes(int64(len(content)))
	c, process := other(b, "taker")
	kept := inMemory(b, content)
	defer kept.Close()
	measured(b, process.Pid, 1, func(int) error { return pass(c, kept) })
}
