package plugin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
)

// summer is a filter, a converter and a store that tells the sum of each content, and the inode of the file that it came in.
type summer struct{}

func beSummer(mode string) {
	fd, _ := strconv.Atoi(os.Getenv(sdk.FilesKey))
	switch mode {
	case "summer-old": // of an SDK that knows no files
		os.Unsetenv(sdk.FilesKey)
	case "summer-deaf": // listens to another socket than the one that it is sent files on
		pair, _ := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0)
		os.Setenv(sdk.FilesKey, strconv.Itoa(pair[0]))
	case "summer-shut":
		unix.Close(fd)
	case "summer-garbler":
		for unix.Send(fd, []byte("garbage"), unix.MSG_DONTWAIT) == nil {
		}
	}
	sdk.Serve(sdk.Plugin[struct{}]{Name: "summer", Version: "1", Kinds: summer{}, New: func(context.Context, struct{}, sdk.Host) (any, error) {
		if mode == "summer-full" { // no number is left for a descriptor
			return summer{}, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: 3})
		}
		return summer{}, nil
	}})
}

func (summer) sum(c mail.Content) string {
	h := sha256.New()
	if _, err := io.Copy(h, mail.Reader(c)); err != nil {
		return err.Error()
	}
	said := hex.EncodeToString(h.Sum(nil)[:8])
	for _, inode := range contentFiles() {
		said += " " + inode
	}
	return said
}

// contentFiles lists the inodes of the contents that this process has a descriptor of.
func contentFiles() (inodes []string) {
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, link := range links {
		var st unix.Stat_t
		if name, _ := os.Readlink(link); strings.Contains(name, "memfd:mta-content") && unix.Stat(link, &st) == nil {
			inodes = append(inodes, strconv.FormatUint(st.Ino, 10))
		}
	}
	return inodes
}

func (s summer) Message(ctx context.Context, _ *mail.Session, m *mail.Message) (mail.Verdict, error) {
	said := s.sum(m.Content)
	if mode := os.Getenv("MODE"); mode == "summer-loves-files" || mode == "summer-loves-chunks" {
		if file := strings.Contains(said, " "); m.Content.Size() > 64<<10 && file != (mode == "summer-loves-files") {
			return mail.Verdict{Action: mail.ActionReject}, nil // with no reply, which no plugin may
		}
	}
	switch m.ID {
	case "die":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "hang":
		<-ctx.Done()
	case "exec":
		for fd := lifelineFD; fd < 100; fd++ {
			name, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
			flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
			if err == nil && flags&unix.FD_CLOEXEC == 0 && (fd <= filesFD || strings.Contains(name, "mta-content")) {
				said = fmt.Sprintf("children inherit descriptor %d", fd)
			}
		}
	}
	return mail.Verdict{Action: mail.ActionContinue, Reason: said}, nil
}

func (s summer) Convert(_ context.Context, c *mail.Conversion) (mail.Converted, error) {
	return mail.Converted{Content: mail.Splice([]byte(s.sum(c.Content)+"\r\n"), c.Content, 0), Body: mail.Body7Bit}, nil
}

func (s summer) Store(_ context.Context, d *mail.Delivery) ([]mail.Reply, error) {
	return slices.Repeat([]mail.Reply{mail.NewReply(250, "2.0.0", s.sum(d.Content))}, len(d.To)), nil
}

func letter(size int) mail.Content {
	b := bytes.Repeat([]byte("0123456789abcd\r\n"), size/16+1)[:size]
	return mail.Bytes(append(append([]byte("A: b\r\n\r\n"), b[8:size-2]...), "\r\n"...))
}

func sumOfContent(c mail.Content) string { sum, _, _ := strings.Cut(summer{}.sum(c), " "); return sum }

// tell asks a summer about a content at stage message, and returns the inode that it tells of, "" for chunks.
func tell(t *testing.T, p *Plugin, c mail.Content) string {
	t.Helper()
	v, err := p.Message(t.Context(), &mail.Session{ID: "s"}, &mail.Message{ID: "m", Content: c})
	sum, inode, _ := strings.Cut(v.Reason, " ")
	if err != nil || sum != sumOfContent(c) {
		t.Fatalf("%d bytes: %v, %q", c.Size(), err, v.Reason)
	}
	return inode
}

// quick has files rest no longer than they are used.
func quick(t *testing.T) {
	t.Helper()
	old := contents
	contents = &files{rest: 10 * time.Millisecond, room: maxFiles, kept: make(map[mail.Content]*file)}
	t.Cleanup(func() { contents = old })
}

// noneLeft waits until this process holds no content any more.
func noneLeft(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); len(contentFiles()) > 0; <-time.After(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("left open: %v", contentFiles())
		}
	}
	contents.mu.Lock()
	defer contents.mu.Unlock()
	if contents.room != maxFiles || len(contents.kept) > 0 {
		t.Errorf("%d bytes of room, not %d; %v", contents.room, maxFiles, contents.kept)
	}
}

func TestContentsComeAsFiles(t *testing.T) {
	quick(t)
	sandboxed := spec(t, "summer")
	sandboxed.Shim, sandboxed.Sandbox, sandboxed.Limits = []string{os.Args[0], "-shim"}, &Sandbox{}, Limits{NoFile: 32, Memory: 1 << 30}
	pooled := spec(t, "summer")
	pooled.Processes = 2
	for name, s := range map[string]Spec{
		"files": spec(t, "summer"), "sandboxed": sandboxed, "pooled": pooled, "old": spec(t, "summer-old"), "deaf": spec(t, "summer-deaf"),
		"shut": spec(t, "summer-shut"), "garbler": spec(t, "summer-garbler"), "full": spec(t, "summer-full"),
	} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && name != "sandboxed" && name != "old" && name != "deaf" {
				t.Skip("its process is slow to start with the race detector")
			}
			p := start(t, s)
			files := name == "files" || name == "sandboxed" || name == "garbler" || name == "pooled"
			for _, size := range []int{64<<10 - 1, 64 << 10, 64<<10 + 1, 255<<10 - 1, 255 << 10, 255<<10 + 1, 10 << 20} {
				if name == "full" && size > 4<<20 {
					continue // chunks need a descriptor, too, when there are many
				}
				if inode := tell(t, p, letter(size)); (inode != "") != (files && size > 64<<10) {
					t.Errorf("%d bytes came in the file %q", size, inode)
				}
			}
			said := strings.Join(p.Status().InForce, "; ")
			if chunks := strings.Contains(said, "in chunks"); chunks != (name == "old") {
				t.Error(said)
			}
			if post := p.workers[0].current.Load().child.post; isClosed(t, post) != (name == "old") {
				t.Error("a socket that nobody reads stays open, or the other way round")
			}
		})
	}
	noneLeft(t)
}

// TestOneFileForAll asks two filters, a converter and a store about one message whose header is edited on the way.
func TestOneFileForAll(t *testing.T) {
	quick(t)
	contents.rest = time.Hour
	a, b := start(t, spec(t, "summer")), start(t, spec(t, "summer"))
	c := letter(1 << 20)
	inode := tell(t, a, c)
	if inode == "" || strings.Contains(inode, " ") {
		t.Fatal(inode)
	}
	if v, err := b.Message(t.Context(), &mail.Session{ID: "s"}, &mail.Message{ID: "exec", Content: c}); err != nil || strings.Contains(v.Reason, "inherit") {
		t.Error(v.Reason, err)
	}
	edited := mail.Splice([]byte("X: y\r\n\r\n"), c, 8)
	if got := tell(t, b, edited); got != inode {
		t.Errorf("the second filter had the file %s, not %s", got, inode)
	}
	converted, err := a.Convert(t.Context(), &mail.Conversion{ID: "m", Content: edited})
	if err != nil {
		t.Fatal(err)
	}
	whole, err := io.ReadAll(mail.Reader(converted.Content))
	line, rest, _ := bytes.Cut(whole, []byte("\r\n"))
	if err != nil || string(line) != sumOfContent(edited)+" "+inode || sumOfContent(mail.Bytes(rest)) != sumOfContent(edited) {
		t.Errorf("%v, %s", err, line)
	}
	topped := mail.Splice([]byte("Return-Path: <>\r\n"), edited, 0)
	replies, err := b.Store(t.Context(), &mail.Delivery{ID: "m", Content: topped, To: []mail.Recipient{{Address: mail.MustParseAddress("a@x.example")}}})
	if err != nil || replies[0].Text != sumOfContent(topped)+" "+inode {
		t.Error(replies, err)
	}
	if n := contentFiles(); len(n) != 1 {
		t.Errorf("%d files", len(n))
	}
	contents.rest = 0
	tell(t, a, c)
	noneLeft(t)
}

func isClosed(t *testing.T, p *post) bool {
	t.Helper()
	conn, err := p.socket.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return conn.Control(func(uintptr) {}) != nil
}

// descriptors returns how many descriptors this process has.
func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(list)
}

// TestFilesAreGivenBack ends calls in bad ways.
func TestFilesAreGivenBack(t *testing.T) {
	quick(t)
	p := start(t, spec(t, "summer"))
	tell(t, p, letter(1<<20))
	noneLeft(t)
	before, first := descriptors(t), p.workers[0].current.Load().child.post
	for _, id := range []string{"die", "hang"} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if id == "hang" {
			go func() {
				for ctx.Err() == nil && len(contentFiles()) == 0 {
					<-time.After(time.Millisecond)
				}
				cancel() // with the message on its way, or there
			}()
		}
		v, err := p.Message(ctx, &mail.Session{ID: "s"}, &mail.Message{ID: id, Content: letter(1 << 20)})
		cancel()
		if err == nil {
			t.Error(id, v)
		}
		noneLeft(t)
	}
	if inode := tell(t, p, letter(1<<20)); inode == "" {
		t.Error("the next process gets chunks")
	}
	if !isClosed(t, first) {
		t.Error("the socket of a dead process stays open")
	}
	noneLeft(t)
	for end := time.Now().Add(20 * time.Second); descriptors(t) > before; <-time.After(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d descriptors, where %d were before", descriptors(t), before)
		}
	}
}

// TestConformanceAsksBothWays examines plugins that take large contents in one way alone.
func TestConformanceAsksBothWays(t *testing.T) {
	if testing.Short() {
		t.Skip("its many processes are slow to start with the race detector")
	}
	for mode, want := range map[string]string{"summer": "", "summer-loves-files": "message/large ", "summer-loves-chunks": "message/hostile message/large "} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			c, err := Conform(t.Context(), spec(t, mode), Options{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			failed := ""
			for _, f := range c.Checks {
				if f.Result == Failing {
					failed += f.Name + " "
				}
			}
			if failed != want {
				t.Errorf("failed: %s; want %s", failed, want)
			}
		})
	}
}

// TestUnread leaves a process with as many descriptors unread as it may have, and with more calls.
func TestUnread(t *testing.T) {
	quick(t)
	p := start(t, spec(t, "summer-deaf"))
	post := p.workers[0].current.Load().child.post
	f, done, err := contents.use(letter(100 << 10))
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	sent := 0
	for ; err == nil && sent < 1000; sent++ {
		_, err = post.send(t.Context(), f)
	}
	if err == nil || sent > 100 {
		t.Errorf("%d descriptors were sent to a process that reads none: %v", sent, err)
	}
	if inode := tell(t, p, letter(100<<10)); inode != "" {
		t.Error(inode)
	}
}

// TestStaleFiles leaves a plugin descriptors that no request names, as calls do that end before their request has gone.
func TestStaleFiles(t *testing.T) {
	quick(t)
	p := start(t, spec(t, "summer"))
	post := p.workers[0].current.Load().child.post
	f, done, err := contents.use(letter(100 << 10))
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Hour))
	defer cancel()
	for range 5 {
		if _, err := post.send(ctx, f); err != nil {
			t.Fatal(err)
		}
	}
	tell(t, p, letter(100<<10)) // takes them all
	for end := time.Now().Add(20 * time.Second); ; <-time.After(5 * time.Millisecond) {
		if inode := tell(t, p, letter(100<<10)); !strings.Contains(inode, " ") {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the plugin keeps what it will not be asked about any more")
		}
	}
}

func TestFilesAreBounded(t *testing.T) {
	s := &files{rest: time.Hour, room: 1 << 20, kept: make(map[mail.Content]*file)}
	var leave []func()
	for range 4 { // small ones count as 256 KiB
		_, done, err := s.use(letter(100 << 10))
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, done)
	}
	if _, _, err := s.use(letter(100 << 10)); err == nil {
		t.Error("a fifth was kept")
	}
	leave[0]()
	large, done, err := s.use(letter(200 << 10)) // in the room of the one that rests
	if err != nil || len(s.kept) != 4 {
		t.Fatal(err, len(s.kept))
	}
	if _, err := large.Write([]byte("x")); err == nil {
		t.Error("it can be written to")
	}
	if err := large.Truncate(0); err == nil {
		t.Error("it can be made shorter")
	}
	done()
	broken := mail.Splice(nil, badContent{}, 0)
	if _, _, err := s.use(broken); err == nil || s.kept[broken] != nil {
		t.Error("half a content was kept", err)
	}
	for _, done := range leave[1:] {
		done()
	}
	s.rest = 0
	var wg sync.WaitGroup
	for range 8 { // at once, and one of them makes it
		wg.Go(func() {
			for i := range 100 {
				c := letter(70<<10 + i%3)
				if f, done, err := s.use(c); err == nil {
					if _, err := f.Stat(); err != nil {
						t.Error(err)
					}
					done()
				}
			}
		})
	}
	wg.Wait()
}

type badContent struct{}

func (badContent) Size() int64 { return 100 << 10 }

func (badContent) ReadAt([]byte, int64) (int, error) { return 0, fmt.Errorf("the disk is broken") }
