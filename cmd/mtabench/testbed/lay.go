//go:build linux

package testbed

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Resolver is where the DNS server of the ground listens, and what /etc/resolv.conf there names.
const Resolver = "127.0.0.53:53"

// covered are the folders in which peers, built to run alone on a machine, write: nothing of that reaches the machine.
var covered = []string{"/etc", "/run", "/dev", "/var/spool", "/var/lib"}

// Covers names the covered folder that dir is below; "" if there is none.
func Covers(dir string) string {
	for _, c := range append(covered, "/usr") {
		if dir == c || strings.HasPrefix(dir, c+"/") {
			return c
		}
	}
	return ""
}

// Groups is the folder of the cgroup v2 hierarchy in which control groups are made.
func Groups(dir string) string { return filepath.Join(bed(dir), "cgroup", groupsName(dir)) }

func bed(dir string) string { return filepath.Join(dir, "bed") }

// groupsName differs for each folder: two of them may be at work at once.
func groupsName(dir string) string {
	return "mtabench" + strings.ReplaceAll(filepath.Clean(dir), "/", "-")
}

// lay makes the ground. It runs in the new namespaces.
func lay(plan Plan) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mounts can't be made private: %w", err)
	}
	if err := mount("proc", "proc", "/proc"); err != nil {
		return err
	}
	// Without tracefs syncs are not counted; the meter says so.
	_ = mount("tracefs", "tracefs", "/sys/kernel/tracing")
	if err := groups(plan.Dir); err != nil {
		return err
	}
	if err := cover(plan); err != nil {
		return err
	}
	if err := accounts(plan.Users); err != nil {
		return err
	}
	if err := names(); err != nil {
		return err
	}
	if err := manyFiles(); err != nil {
		return err
	}
	return loopbackUp()
}

// manyFiles lets every process have as many open files as the machine allows, within reason: some peers close them all, one
// by one, at each start of a process.
func manyFiles() error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = min(limit.Max, 20_000)
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
}

func mount(kind, source, target string) error {
	if err := unix.Mount(source, target, kind, 0, ""); err != nil {
		return fmt.Errorf("%s can't be mounted on %s: %w", kind, target, err)
	}
	return nil
}

func groups(dir string) error {
	root := filepath.Join(bed(dir), "cgroup")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	if err := mount("cgroup2", "none", root); err != nil {
		return err
	}
	if err := os.Mkdir(Groups(dir), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("no control group can be made: %w", err)
	}
	return nil
}

// clearGroups removes the groups. What is still in them ends with the namespace.
func clearGroups(plan Plan) {
	dir := Groups(plan.Dir)
	left, err := filepath.Glob(filepath.Join(dir, "*", "cgroup.procs"))
	if err != nil {
		return
	}
	for _, procs := range left {
		os.Remove(filepath.Dir(procs))
	}
	os.Remove(dir)
}

// cover lays a layer in memory over each covered folder, and over /usr the peers' programs as well.
func cover(plan Plan) error {
	layers := filepath.Join(bed(plan.Dir), "layers")
	if err := os.MkdirAll(layers, 0o755); err != nil {
		return err
	}
	if err := mount("tmpfs", "layers", layers); err != nil {
		return err
	}
	var usr []string
	for _, dir := range plan.Usr {
		if _, err := os.Stat(dir); err == nil {
			usr = append(usr, dir)
		}
	}
	if err := overlay(layers, "/usr", append(usr, "/usr")); err != nil {
		return err
	}
	for _, dir := range covered {
		if err := overlay(layers, dir, []string{dir}); err != nil {
			return err
		}
	}
	return nil
}

func overlay(layers, target string, lower []string) error {
	name := filepath.Join(layers, strings.ReplaceAll(target, "/", "-"))
	upper, work := name+"-upper", name+"-work"
	if err := errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755)); err != nil {
		return err
	}
	options := "lowerdir=" + strings.Join(lower, ":") + ",upperdir=" + upper + ",workdir=" + work
	if err := unix.Mount("overlay", target, "overlay", 0, options); err != nil {
		return fmt.Errorf("%s can't be covered by an overlay: %w", target, err)
	}
	return nil
}

// accounts adds the users that are not there to passwd and group.
func accounts(users []string) error {
	const first = 64900 // Debian keeps 60000 to 64999 for packages
	for i, name := range users {
		id := first + i
		if err := addLine("/etc/group", name, fmt.Sprintf("%s:x:%d:\n", name, id)); err != nil {
			return err
		}
		if err := addLine("/etc/passwd", name, fmt.Sprintf("%s:x:%d:%d::/var/lib/empty:/usr/sbin/nologin\n", name, id, id)); err != nil {
			return err
		}
	}
	return os.MkdirAll("/var/lib/empty", 0o755)
}

func addLine(path, name, line string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if strings.HasPrefix(string(text), name+":") || strings.Contains(string(text), "\n"+name+":") {
		return nil
	}
	return os.WriteFile(path, append(text, line...), 0o644)
}

// names makes the files by which programs look names up.
func names() error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	for path, text := range map[string]string{
		"/etc/resolv.conf":   "nameserver 127.0.0.53\n",
		"/etc/hosts":         "127.0.0.1 localhost mta.test mx.sink.test " + host + "\n",
		"/etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n",
	} {
		os.Remove(path) // it may be a link into what is covered now
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }() // it has done its work
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("loopback can't be brought up: %w", err)
	}
	return nil
}
