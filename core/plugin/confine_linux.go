package plugin

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// memorySlack is what the kernel gives a process beyond its limit, so that it is the supervisor that sees and tells it:
// programs reserve memory that they do not use.
const memorySlack = 512 << 20

func (c *confinement) apply() error {
	if err := ll.AllThreadsPrctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	for _, l := range []struct {
		name     string
		resource int
		value    int64
	}{
		{"limits.nofile", unix.RLIMIT_NOFILE, int64(c.Limits.NoFile)},
		{"limits.pids", unix.RLIMIT_NPROC, int64(c.Limits.PIDs)},
		{"limits.memory", unix.RLIMIT_DATA, dataLimit(c.Limits.Memory)},
	} {
		if l.value <= 0 {
			continue
		}
		if err := unix.Setrlimit(l.resource, &unix.Rlimit{Cur: uint64(l.value), Max: uint64(l.value)}); err != nil {
			return fmt.Errorf("%s = %d: %w", l.name, l.value, err)
		}
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil { // a core would hold people's mail
		return fmt.Errorf("core files: %w", err)
	}
	if c.Sandbox == nil {
		return nil
	}
	if err := c.Sandbox.enter(); err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	return nil
}

func dataLimit(memory int64) int64 {
	if memory == 0 {
		return 0
	}
	return 2*memory + memorySlack
}

// What every program needs to run at all, and no secret of this machine.
var (
	systemRead = []string{
		"/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/proc", "/sys/fs/cgroup", "/sys/kernel/mm",
		"/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/resolv.conf", "/etc/hosts", "/etc/host.conf",
		"/etc/nsswitch.conf", "/etc/gai.conf", "/etc/services", "/etc/protocols", "/etc/passwd", "/etc/group", "/etc/localtime",
		"/etc/alternatives", "/etc/mime.types", "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/pki/tls/certs", "/etc/ca-certificates",
		"/dev/urandom", "/dev/random",
	}
	systemWrite = []string{"/dev/null", "/dev/zero", "/dev/full"}
)

// enter has the kernel keep this process to the sandbox, as far as the kernel can.
func (s *Sandbox) enter() error {
	config, err := landlock.NewConfig(
		landlock.AccessFSSet(ll.AccessFSIoctlDev<<1-1), landlock.AccessNetSet(ll.AccessNetConnectTCP),
		landlock.ScopedSet(ll.ScopeAbstractUnixSocket|ll.ScopeSignal))
	if err != nil {
		return err
	}
	var rules []landlock.Rule
	for _, list := range []struct {
		paths []string
		dirs  func(...string) landlock.FSRule
		files func(...string) landlock.FSRule
		must  bool
	}{
		{systemRead, landlock.RODirs, landlock.ROFiles, false}, {systemWrite, changeDirs, landlock.RWFiles, false},
		{s.Read, landlock.RODirs, landlock.ROFiles, true}, {s.Write, changeDirs, landlock.RWFiles, true},
	} {
		for _, path := range list.paths {
			info, err := os.Stat(path)
			switch {
			case err != nil && (list.must || !errors.Is(err, fs.ErrNotExist)):
				return err
			case err != nil:
			case info.IsDir():
				rules = append(rules, list.dirs(path))
			default:
				rules = append(rules, list.files(path))
			}
		}
	}
	for _, port := range s.ConnectTCP {
		rules = append(rules, landlock.ConnectTCP(uint16(port)))
	}
	return config.BestEffort().Restrict(rules...)
}

// changeDirs allows moving files between directories too, as a Maildir does.
func changeDirs(paths ...string) landlock.FSRule { return landlock.RWDirs(paths...).WithRefer() }

// inForce tells what holds a process back. But for the sandbox, which a process can't be asked about, it is read from the
// kernel.
func inForce(pid int, s *Spec) []string {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil
	}
	limits, _ := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	words := []string{"user " + ownerName(line1(status, "Uid:"), s.User)}
	if line1(status, "NoNewPrivs:") == "1" {
		words = append(words, "no new privileges")
	}
	if s.Limits.Memory > 0 {
		words = append(words, fmt.Sprintf("memory, with all that it starts: killed above %d MiB; one process gets none beyond %s bytes", s.Limits.Memory>>20, line1(limits, "Max data size")))
	}
	words = append(words, "open files: "+line1(limits, "Max open files"))
	if s.Limits.PIDs > 0 {
		words = append(words, "processes and threads of its user: "+line1(limits, "Max processes"))
	}
	return append(words, "sandbox: "+sandboxLevel(s))
}

// line1 returns the first word after a key of a file in /proc.
func line1(text []byte, key string) string {
	_, rest, ok := strings.Cut(string(text), key)
	f := strings.Fields(rest)
	if !ok || len(f) == 0 {
		return "?"
	}
	return f[0]
}

func ownerName(uid, name string) string {
	if name == "" {
		return uid + " (the server's own)"
	}
	return uid + " (" + name + ")"
}

// sandboxLevel says how much of a sandbox this kernel can keep.
func sandboxLevel(s *Spec) string {
	if s.Sandbox == nil || s.Shim == nil {
		return "none"
	}
	abi, err := ll.LandlockGetABIVersion()
	switch {
	case err != nil || abi < 1:
		return "none: this kernel has no Landlock"
	case abi < 4:
		return fmt.Sprintf("files (Landlock %d; connections need 4)", abi)
	case abi < 6:
		return fmt.Sprintf("files, TCP connections (Landlock %d)", abi)
	default:
		return fmt.Sprintf("files, TCP connections, signals (Landlock %d)", abi)
	}
}

// memoryOf returns how much memory a plugin has of its own, in bytes: its process, and all that it has started, which is known
// by its group or by its mark. What has left the group and put away its environment is not seen.
func memoryOf(pid int, mark string) int64 {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	group, sum := strconv.Itoa(pid), int64(0)
	for _, dir := range dirs {
		stat, err := os.ReadFile(dir + "/stat")
		if err != nil {
			continue
		}
		if f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])); len(f) > 2 && f[2] == group || isMarked(dir+"/environ", mark) {
			sum += ownMemory(dir + "/statm")
		}
	}
	return sum
}

// ownMemory returns what a process shares with nobody, in bytes; 0 when that can't be seen.
func ownMemory(statm string) int64 {
	text, err := os.ReadFile(statm)
	f := strings.Fields(string(text))
	if err != nil || len(f) < 3 {
		return 0
	}
	resident, err1 := strconv.ParseInt(f[1], 10, 64)
	shared, err2 := strconv.ParseInt(f[2], 10, 64)
	if err1 != nil || err2 != nil {
		return 0
	}
	return (resident - shared) * int64(os.Getpagesize())
}
