package plugin

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	goplugin "github.com/hashicorp/go-plugin"

	"github.com/pabal-mta/mta/sdk"
)

// Descriptors that a plugin inherits beside the standard three.
const (
	lifelineFD = 3
	execFD     = 4 // the pinned program
	filesFD    = 5 // a socket on which large contents come, as descriptors
)

// pipeGrace is how long the pipes of a dead plugin are still read: its last words are on their way, and a grandchild may
// hold the other end for ever.
const pipeGrace = 50 * time.Millisecond

// child is one plugin process. It is a go-plugin runner that gives go-plugin nothing but the line of the handshake: the
// rest of both streams is read here, to the end, however long its lines are.
type child struct {
	spec   *Spec
	bin    *binary
	user   *account
	env    []string
	held   bool   // env says what it is kept to
	mark   string // what its environment, and that of all it starts, has of its own; see killMarked
	out    *output
	line   *io.PipeReader // go-plugin reads the handshake here
	offer  *io.PipeWriter
	pid    atomic.Int64     // 0 before the process is there
	gone   chan struct{}    // closed when the process has ended and its group is killed
	quiet  chan struct{}    // closed when both streams have been read to the end
	alone  chan struct{}    // closed when all that it has started is killed
	state  *os.ProcessState // after gone
	reap   *os.File         // our end of the lifeline
	post   *post            // where it is sent files; nil: nowhere
	greets string           // the first line, if it was no handshake; after quiet or the end of line
}

func newChild(l *launcher, cmd *exec.Cmd, sockets string) *child {
	c := &child{spec: l.spec, bin: l.bin, user: l.user, out: l.out, mark: markOf(sockets), gone: make(chan struct{}), quiet: make(chan struct{}), alone: make(chan struct{})}
	c.line, c.offer = io.Pipe()
	for _, key := range []string{"PATH", "HOME", "TZ", "LANG", "TMPDIR"} {
		if v, ok := os.LookupEnv(key); ok {
			c.env = append(c.env, key+"="+v)
		}
	}
	if n := l.spec.Limits.Memory; n > 0 {
		c.env = append(c.env, fmt.Sprintf("GOMEMLIMIT=%d", n*9/10)) // a Go program then collects its garbage in time
	}
	c.env = slices.Concat(c.env, l.spec.Env, cmd.Env, []string{fmt.Sprintf("%s=%d", sdk.LifelineKey, lifelineFD)})
	if l.spec.Shim != nil {
		c.env, c.held = append(c.env, confinementOf(l).String()), true
	}
	return c
}

// markOf is the variable in which go-plugin tells a process the directory of its sockets, which no other process has: what
// it starts inherits it. In an environment a NUL ends every variable.
func markOf(sockets string) string { return goplugin.EnvUnixSocketDir + "=" + sockets + "\x00" }

// marksIn is how the marks of all processes begin whose sockets are in a directory.
func marksIn(dir string) string {
	return goplugin.EnvUnixSocketDir + "=" + dir + string(filepath.Separator)
}

// Start starts the process.
func (c *child) Start(context.Context) error {
	started := make(chan error)
	go c.live(started)
	return <-started
}

// live starts the process and stays until it has ended. The kernel kills the process when the thread dies that started it,
// so this goroutine keeps its thread for itself, and the thread ends with it.
func (c *child) live(started chan<- error) {
	runtime.LockOSThread()
	proc, stdout, stderr, err := c.spawn()
	if err != nil {
		_ = c.offer.Close()
		close(c.gone)
		close(c.quiet)
		close(c.alone)
		started <- err
		return
	}
	started <- nil
	read := make(chan struct{})
	go func() {
		defer close(read)
		c.readStreams(stdout, stderr)
	}()
	awaitExit(proc.Pid)
	_ = syscall.Kill(-proc.Pid, syscall.SIGKILL) // what it has left behind
	c.state, _ = proc.Wait()
	c.reap.Close()
	c.post.close()
	close(c.gone)
	select {
	case <-read:
	case <-time.After(pipeGrace):
	}
	stdout.Close()
	stderr.Close()
	<-read
	close(c.quiet)
	killMarked(c.mark) // what has left its group
	close(c.alone)
}

// spawn starts the process and returns our ends of its streams.
func (c *child) spawn() (proc *os.Process, stdout, stderr *os.File, err error) {
	var ours, theirs []*os.File
	defer func() {
		closeAll(theirs)
		if err != nil {
			closeAll(ours)
		}
	}()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, nil, nil, err
	}
	theirs = append(theirs, null)
	for range 3 { // standard output, standard error, lifeline
		r, w, err := os.Pipe()
		if err != nil {
			return nil, nil, nil, err
		}
		if len(ours) == 2 {
			r, w = w, r
		}
		ours, theirs = append(ours, r), append(theirs, w)
	}
	files, env := append(slices.Clone(theirs), c.bin.file), c.env
	post, socket, err := newPost()
	if err == nil { // else it gets chunks
		theirs, files, env = append(theirs, socket), append(files, socket), append(env, fmt.Sprintf("%s=%d", sdk.FilesKey, filesFD))
	}
	path, argv := c.command()
	proc, err = os.StartProcess(path, argv, &os.ProcAttr{Env: env, Files: files, Sys: sysProcAttr(c.user.credential())})
	if err != nil {
		post.close()
		return nil, nil, nil, err
	}
	c.post = post
	c.pid.Store(int64(proc.Pid))
	c.reap = ours[2]
	return proc, ours[0], ours[1], nil
}

// command is what is executed: the program, or our own, which confines itself before it becomes the program. A built-in is
// our own program already.
func (c *child) command() (path string, argv []string) {
	argv = slices.Concat([]string{c.spec.source()}, c.args())
	switch {
	case c.spec.Builtin != "" && c.user != nil: // who may not be able to come to our program by its name
		return selfPath(""), argv
	case c.spec.Builtin != "" || !c.held:
		return c.bin.path, argv
	}
	return selfPath(""), slices.Concat(c.spec.Shim, []string{c.bin.path}, argv)
}

func (c *child) args() []string {
	if c.spec.Builtin != "" {
		return c.spec.BuiltinArgs
	}
	return c.spec.Args
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

func (c *child) readStreams(stdout, stderr io.Reader) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.out.read(bufio.NewReaderSize(stderr, maxLine), "stderr")
	}()
	r := bufio.NewReaderSize(stdout, maxLine)
	c.readHandshake(r)
	c.out.read(r, "stdout")
	<-done
}

var handshake = regexp.MustCompile(`^[0-9]+\|[0-9]+\|(unix|tcp)\|[^|]+`)

// readHandshake hands go-plugin the first line of the standard output, or the end of it when that is something else.
func (c *child) readHandshake(r *bufio.Reader) {
	line, err := r.ReadSlice('\n')
	if handshake.Match(line) && err == nil {
		_, _ = c.offer.Write(line)
	} else if line = bytes.TrimSpace(line); len(line) > 0 {
		c.greets = string(line[:min(len(line), 200)])
	}
	_ = c.offer.Close()
}

// Wait waits for the end of the process, whoever holds its pipes.
func (c *child) Wait(context.Context) error {
	<-c.gone
	if c.state == nil || !c.state.Success() {
		return errors.New(c.ending())
	}
	return nil
}

// ending says how the process ended; after gone.
func (c *child) ending() string {
	if c.state == nil {
		return "unknown exit status"
	}
	return c.state.String()
}

// Kill kills the whole process group.
func (c *child) Kill(context.Context) error {
	c.kill()
	return nil
}

func (c *child) kill() {
	pid := int(c.pid.Load())
	if pid == 0 {
		return
	}
	select {
	case <-c.gone: // the number may be somebody else's by now
	default:
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
}

// Stdout is where go-plugin reads the handshake.
func (c *child) Stdout() io.ReadCloser { return c.line }

// Stderr is empty: the log is ours.
func (c *child) Stderr() io.ReadCloser { return io.NopCloser(strings.NewReader("")) }

// Name names the program.
func (c *child) Name() string { return c.spec.source() }

// ID is the number of the process.
func (c *child) ID() string {
	if c.pid.Load() == 0 {
		return ""
	}
	return fmt.Sprint(c.pid.Load())
}

// Diagnose has nothing to add: startError in errors.go says it all.
func (c *child) Diagnose(context.Context) string { return "" }

// PluginToHost leaves addresses as they are.
func (c *child) PluginToHost(network, addr string) (string, string, error) { return network, addr, nil }

// HostToPlugin leaves addresses as they are.
func (c *child) HostToPlugin(network, addr string) (string, string, error) { return network, addr, nil }
