package plugin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
)

// TestMain makes the test binary a plugin, with the fault that MODE names, or a host that is to be killed.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-shim" {
		fmt.Fprintln(os.Stderr, Exec(os.Args[2:]))
		os.Exit(1)
	}
	switch mode := os.Getenv("MODE"); mode {
	case "":
		os.Exit(m.Run())
	case "host":
		beHost()
	case "stockhost":
		beStockHost()
	default:
		bePlugin(mode)
	}
}

func bePlugin(mode string) {
	if err := Confine(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if rule, ok := strings.CutPrefix(mode, "rogue:"); ok {
		beRogue(rule)
		return
	}
	if strings.HasPrefix(mode, "summer") {
		beSummer(mode)
		return
	}
	switch mode {
	case "eater":
		eaten = bytes.Repeat([]byte("x"), 300<<20)
		time.Sleep(time.Hour)
	case "floor":
		beFloor()
		return
	case "reader":
		beReader()
		return
	case "taker":
		beTaker()
		return
	case "frozen":
		beFrozen()
		return
	case "exit":
		fmt.Fprintln(os.Stderr, "no database")
		os.Exit(3)
	case "chatter":
		fmt.Println("Hello, I am a program")
	case "version":
		fmt.Println("1|7|unix|/nowhere|grpc|")
		select {}
	case "stockprinter":
		beStockPrinter()
		return
	case "stockplugin":
		beStockPlugin()
		return
	case "rawline":
		rawStdout, _ = syscall.Dup(1)
	case "silent":
		signal.Ignore(syscall.SIGTERM)
		select {}
	}
	if strings.HasPrefix(mode, "asker") {
		sdk.Serve(sdk.Plugin[struct{}]{Name: "asker", Version: "0.1.0", Doc: "asks its host", New: newAsker})
		return
	}
	sdk.Serve(sdk.Plugin[faultyConfig]{Name: "faulty", Version: "0.1.0", Doc: "misbehaves", Kinds: (*faulty)(nil), New: newFaulty})
}

type faultyConfig struct {
	Limit int `mta:"limit,optional" default:"3"`
}

// rawStdout is the standard output that the process was started with.
var rawStdout int

// faulty does in a call what the local part of the recipient says.
type faulty struct {
	host  sdk.Host
	limit int
}

func newFaulty(_ context.Context, c faultyConfig, h sdk.Host) (any, error) {
	switch os.Getenv("MODE") {
	case "flood":
		go func() {
			for {
				fmt.Fprintln(os.Stderr, strings.Repeat("flood ", 20))
			}
		}()
	case "rawline":
		_, _ = syscall.Write(rawStdout, []byte(strings.Repeat("y", 200<<10)+"\n"))
	case "longline":
		fmt.Fprintln(os.Stderr, strings.Repeat("x", 100<<10))
		_, _ = syscall.Write(1, []byte(strings.Repeat("y", 100<<10)+"\n"))
		fmt.Println(strings.Repeat("z", 100<<10))
	case "once":
		mark := filepath.Join(h.StateDir(), "lived")
		if _, err := os.Stat(mark); err == nil {
			fmt.Fprintln(os.Stderr, "out of luck")
			os.Exit(4)
		}
		return &faulty{h, c.Limit}, os.WriteFile(mark, nil, 0o600)
	case "grandchild", "escaped":
		cmd := exec.Command("sleep", map[string]string{"grandchild": "3", "escaped": "600"}[os.Getenv("MODE")])
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: os.Getenv("MODE") == "escaped"}
		cmd.Stderr, cmd.Stdout = os.Stderr, os.Stderr
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		if h.StateDir() != "" {
			if err := os.WriteFile(filepath.Join(h.StateDir(), "child"), fmt.Append(nil, cmd.Process.Pid), 0o600); err != nil {
				return nil, err
			}
		}
	}
	if c.Limit < 0 {
		return nil, errors.New("limit is negative")
	}
	return &faulty{h, c.Limit}, nil
}

func (f *faulty) Rcpt(ctx context.Context, s *mail.Session, r mail.Recipient) (mail.Verdict, error) {
	switch r.Address.Local() {
	case "panic":
		panic("as asked")
	case "hang":
		select {}
	case "sleep":
		<-ctx.Done()
		return mail.Verdict{}, ctx.Err()
	case "exit":
		os.Exit(9)
	case "exit-once":
		if _, err := os.Stat(filepath.Join(f.host.StateDir(), "died")); err != nil {
			_ = os.WriteFile(filepath.Join(f.host.StateDir(), "died"), nil, 0o600)
			os.Exit(9)
		}
	case "limit":
		return mail.Reject(550, "5.7.1", "%d", f.limit), nil
	case "reach":
		return mail.Reject(550, "5.7.1", "%s", reach(s.Helo)), nil
	case "eat":
		eaten = bytes.Repeat([]byte("x"), 300<<20)
		<-ctx.Done()
	case "wait": // until the file is there
		for ctx.Err() == nil {
			if _, err := os.Stat(s.Helo); err == nil {
				break
			}
			<-time.After(time.Millisecond)
		}
	case "pid":
		return mail.Reject(550, "5.7.1", "%d", os.Getpid()), nil
	case "garbage":
		return mail.Verdict{Action: mail.ActionReject, Reply: mail.Reply{Code: 550, Text: "x\r\nRCPT TO:<e@v>\x00"}}, nil
	case "chatter":
		fmt.Println("stray print")
	case "failing":
		return mail.Verdict{}, errors.New("no database")
	case "environ":
		return mail.Reject(550, "5.7.1", "%s", strings.Join(os.Environ(), " ")), nil
	}
	return mail.Continue(), nil
}

var eaten []byte

// reach tries something that a sandbox may forbid, such as "read /etc/shadow", and returns "ok" or what happened.
func reach(what string) string {
	verb, object, _ := strings.Cut(what, " ")
	var err error
	switch verb {
	case "read":
		_, err = os.ReadFile(object)
	case "list":
		_, err = os.ReadDir(object)
	case "write":
		err = os.WriteFile(object, []byte("x"), 0o600)
	case "move":
		from, to, _ := strings.Cut(object, " ")
		err = os.Rename(from, to)
	case "dial":
		var c net.Conn
		if c, err = net.Dial("tcp", object); err == nil {
			c.Close()
		}
	case "signal":
		pid, _ := strconv.Atoi(object)
		err = syscall.Kill(pid, 0)
	case "run":
		err = exec.Command(object).Run()
	case "child": // that eats, in the plugin's group with an environment of its own, or the other way round
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{"MODE=eater"}
		if object == "elsewhere" {
			cmd.Env, cmd.SysProcAttr = append(os.Environ(), cmd.Env...), &syscall.SysProcAttr{Setsid: true}
		}
		err = cmd.Start()
	case "storm":
		n, _ := strconv.Atoi(object)
		for i := 0; i < n && err == nil; i++ {
			err = exec.Command("sleep", "600").Start()
		}
	case "burn":
		for range 4 * runtime.NumCPU() {
			go func() {
				for n := uint64(1); n != 0; n++ {
				}
			}()
		}
	case "files":
		n, _ := strconv.Atoi(object)
		for range n {
			if _, err = os.Open(os.DevNull); err != nil {
				break
			}
		}
	case "uid":
		return strconv.Itoa(os.Getuid())
	case "args":
		return strings.Join(os.Args, " ")
	}
	if err != nil {
		return err.Error()
	}
	return "ok"
}

func (f *faulty) Store(_ context.Context, d *mail.Delivery) ([]mail.Reply, error) {
	return []mail.Reply{mail.NewReply(250, "2.0.0", "one for all")}, nil
}

func (f *faulty) Convert(_ context.Context, c *mail.Conversion) (mail.Converted, error) {
	b, err := io.ReadAll(mail.Reader(c.Content))
	return mail.Converted{Content: mail.Bytes(b), Body: mail.Body7Bit}, err
}
