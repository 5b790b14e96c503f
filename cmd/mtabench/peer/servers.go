//go:build linux

package peer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func ours(name string, plugin bool) *Peer {
	p := &Peer{
		Name: name, Kit: "mta", program: "{dir}/bin/mta", port: 2509, plugin: plugin,
		Notes:   "as shipped but ports, connections_per_ip 200 for 20, a smarthost route to the sink without TLS, no accounts and mailboxes",
		files:   map[string]string{"mta.hcl": "mta.hcl"},
		command: func(at Place) []string { return []string{at.Binary, "serve", "-config", at.Run + "/mta.hcl"} },
		flush:   func(at Place) []string { return oursRetry(at, "sink.test") },
		retry:   oursRetry,
		list: func(at Place) []string {
			return []string{at.Binary, "queue", "list", "-config", at.Run + "/mta.hcl", "-from", "@src.test"}
		},
		queued:  oursQueued,
		version: func(at Place) string { return firstLine(at.Binary, "version") },
	}
	if plugin {
		p.Notes += "; a plugin that does nothing on every stage, in its own process"
	}
	return p
}

func oursRetry(at Place, domain string) []string {
	return []string{at.Binary, "queue", "retry", "-config", at.Run + "/mta.hcl", "-domain", domain, "-yes"}
}

// oursQueued counts without asking for a list: it may be a million long.
func oursQueued(at Place) (int, error) {
	out, err := exec.Command(at.Binary, "status", "-config", at.Run+"/mta.hcl", "-json").Output()
	if err != nil {
		return 0, fmt.Errorf("mta status: %w", err)
	}
	return statusQueued(out)
}

func postfix(name string, tuned bool) *Peer {
	p := &Peer{
		Name: name, Kit: "postfix", program: "/usr/sbin/postfix", port: 2501, tuned: tuned,
		Notes:   "Debian's package; defaults but relayhost, mynetworks, no alias maps, maillog_file, no TLS to the sink, no chroot",
		files:   map[string]string{"etc/main.cf": "postfix/main.cf", "etc/master.cf": "postfix/master.cf"},
		prepare: preparePostfix,
		command: func(at Place) []string { return []string{"/usr/sbin/postfix", "-c", at.Run + "/etc", "start"} },
		daemon:  true,
		stop:    func(at Place) []string { return []string{"/usr/sbin/postfix", "-c", at.Run + "/etc", "stop"} },
		flush:   func(at Place) []string { return []string{"/usr/sbin/postqueue", "-c", at.Run + "/etc", "-f"} },
		queued: func(at Place) (int, error) {
			return countFiles("", at.Run+"/spool/active", at.Run+"/spool/incoming", at.Run+"/spool/deferred")
		},
		version: func(Place) string { return "Postfix " + firstLine("/usr/sbin/postconf", "-d", "-h", "mail_version") },
	}
	if tuned {
		p.Notes += "; in_flow_delay 0, 50 to 100 deliveries at a time"
	}
	return p
}

func preparePostfix(at Place) error {
	data := filepath.Join(at.Run, "data")
	if err := errors.Join(os.Mkdir(filepath.Join(at.Run, "spool"), 0o755), os.Mkdir(data, 0o755)); err != nil {
		return err
	}
	return own(data, "postfix")
}

// spoolSMTPD is where OpenSMTPD was built to keep its queue.
const spoolSMTPD = "/var/spool/smtpd"

func opensmtpd(name string, tuned bool) *Peer {
	p := &Peer{
		Name: name, Kit: "opensmtpd", program: "/usr/sbin/smtpd", port: 2502, tuned: tuned,
		Notes:   "Debian's package; defaults (it answers 250 without any sync)",
		files:   map[string]string{"smtpd.conf": "opensmtpd.conf"},
		prepare: prepareOpenSMTPD,
		command: func(at Place) []string { return []string{"/usr/sbin/smtpd", "-F", "-f", at.Run + "/smtpd.conf"} },
		flush: func(Place) []string {
			return []string{"sh", "-c", "smtpctl resume mta; smtpctl resume route; smtpctl schedule all"}
		},
		queued:  func(Place) (int, error) { return countFiles("", spoolSMTPD+"/queue") },
		version: func(Place) string { return strings.TrimPrefix(firstLine("/usr/sbin/smtpd", "-h"), "version: ") },
	}
	if tuned {
		p.Notes += "; its delays between connections to a host off, 100000 messages on one, 20 at a time"
	}
	return p
}

func prepareOpenSMTPD(at Place) error {
	spool := filepath.Join(at.Run, "spool")
	if err := os.Mkdir(spool, 0o711); err != nil {
		return err
	}
	for dir, mode := range map[string]os.FileMode{spoolSMTPD: 0o711, "/var/lib/opensmtpd/empty": 0o755} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return err
		}
	}
	if err := unix.Unmount(spoolSMTPD, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	if err := unix.Mount(spool, spoolSMTPD, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("%s: %w", spoolSMTPD, err)
	}
	group, err := user.LookupGroup("opensmtpq")
	if err != nil {
		return err
	}
	id, err := strconv.Atoi(group.Gid)
	if err != nil {
		return err
	}
	const ctl = "/usr/sbin/smtpctl"
	if err := os.Chown(ctl, 0, id); err != nil {
		return err
	}
	return os.Chmod(ctl, 0o555|fs.ModeSetgid)
}

func exim() *Peer {
	return &Peer{
		Name: "exim", Kit: "exim", program: "/usr/sbin/exim4", port: 2504,
		Notes: "Debian's exim4-daemon-light; smtp_accept_max 200 for 20, smtp_accept_queue_per_connection 0 for 10 (else most " +
			"messages wait for a queue run), a queue run every 30 s",
		files: map[string]string{"/etc/exim4/exim4.conf": "exim.conf"},
		prepare: func(at Place) error {
			spool, logs := filepath.Join(at.Run, "spool"), filepath.Join(at.Run, "elog")
			if err := errors.Join(os.Mkdir(spool, 0o750), os.Mkdir(logs, 0o750)); err != nil {
				return err
			}
			return errors.Join(own(spool, "Debian-exim"), own(logs, "Debian-exim"))
		},
		command: func(at Place) []string {
			return []string{"/usr/sbin/exim4", "-bdf", "-q30s", "-oP", at.Run + "/exim.pid"}
		},
		flush: func(Place) []string {
			return []string{"sh", "-c", "exim4 -qff & exim4 -qff & exim4 -qff & exim4 -qff & wait"}
		},
		queued:  func(at Place) (int, error) { return countFiles("-H", at.Run+"/spool/input") },
		version: func(Place) string { return firstLine("/usr/sbin/exim4", "-bV") },
	}
}

func haraka() *Peer {
	const program = "{dir}/npm/node_modules/Haraka/bin/haraka"
	return &Peer{
		Name: "haraka", Kit: "haraka", program: program, port: 2503,
		Notes: "from npm; one process, log level notice, no TLS, one plugin of ours (relays for all, to the sink)",
		files: map[string]string{"plugins/bench_relay.js": "haraka/bench_relay.js"},
		prepare: func(at Place) error {
			files := map[string]string{
				"me": "mta.test\n", "host_list": "", "plugins": "bench_relay\n", "bench_port": strconv.Itoa(at.Sink) + "\n",
				"smtp.ini":     fmt.Sprintf("listen=127.0.0.1:%d\n", at.Port),
				"outbound.ini": "enable_tls=false\nlocal_mx_ok=true\n",
				"log.ini":      "[main]\nlevel=notice\n",
			}
			shipped, err := os.ReadFile(filepath.Join(filepath.Dir(at.Binary), "../config/connection.ini"))
			if err == nil {
				files["connection.ini"] = string(shipped)
			}
			return errors.Join(writeAll(filepath.Join(at.Run, "config"), files), os.Mkdir(filepath.Join(at.Run, "queue"), 0o755),
				os.Symlink(filepath.Join(at.Dir, "npm/node_modules"), filepath.Join(at.Run, "node_modules")))
		},
		command: func(at Place) []string { return []string{"node", at.Binary, "-c", at.Run} },
		flush: func(at Place) []string {
			return []string{"timeout", "10", "node", at.Binary, "-c", at.Run, "--qunstick", "true"}
		},
		queued:  func(at Place) (int, error) { return countFiles("", at.Run+"/queue") },
		version: func(at Place) string { return "Haraka " + firstLine("node", at.Binary, "-v") },
	}
}

func writeAll(dir string, files map[string]string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func own(path, name string) error {
	u, err := user.Lookup(name)
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return err
	}
	return os.Chown(path, uid, gid)
}

// countFiles counts the files below the folders whose names end so.
func countFiles(end string, dirs ...string) (int, error) {
	n := 0
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOENT) {
				return nil // it was delivered meanwhile
			}
			if err == nil && d.Type().IsRegular() && strings.HasSuffix(d.Name(), end) {
				n++
			}
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	return n, nil
}

// firstLine runs a program and returns the first line that it prints; "" when it can't be run.
func firstLine(program string, args ...string) string {
	out, _ := exec.Command(program, args...).CombinedOutput() // a version is often printed with a complaint
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return strings.TrimSpace(line)
}
