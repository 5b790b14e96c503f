//go:build linux

package peer

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// packages are what apt downloads for each kit. Those that conflict with one another on a machine do not here: nothing is
// installed, each is unpacked into a folder of its own.
var packages = map[string]string{"postfix": "postfix", "opensmtpd": "opensmtpd", "exim": "exim4-daemon-light"}

// Kits are what can be installed.
func Kits() []string { return []string{"postfix", "opensmtpd", "exim", "haraka"} }

// Install downloads a kit into dir and unpacks it there. It needs apt-get, or npm and node for Haraka.
func Install(ctx context.Context, dir, kit string, out io.Writer) error {
	if kit == "haraka" {
		npm := filepath.Join(dir, "npm")
		if err := os.MkdirAll(npm, 0o755); err != nil {
			return err
		}
		return execute(ctx, out, npm, "npm", "install", "--prefix", npm, "--silent", "--no-fund", "--no-audit", "Haraka")
	}
	debs := filepath.Join(dir, "debs", kit)
	if err := os.MkdirAll(filepath.Join(debs, "partial"), 0o755); err != nil {
		return err
	}
	// Without a lock: nothing of the machine's packages is changed.
	err := execute(ctx, out, dir, "apt-get", "install", "--download-only", "--reinstall", "--no-install-recommends", "-y", "-qq",
		"-o", "Dir::Cache::archives="+debs+"/", "-o", "Debug::NoLocking=true", packages[kit])
	if err != nil {
		return fmt.Errorf("%w; is the list of packages old? Try: apt-get update", err)
	}
	return unpack(ctx, debs, root(dir, kit), out)
}

func unpack(ctx context.Context, debs, into string, out io.Writer) error {
	if err := os.RemoveAll(into); err != nil {
		return err
	}
	for _, d := range []string{"bin", "lib", "sbin"} { // all of them are in /usr today
		if err := os.MkdirAll(filepath.Join(into, "usr", d), 0o755); err != nil {
			return err
		}
		if err := os.Symlink("usr/"+d, filepath.Join(into, d)); err != nil {
			return err
		}
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range files {
		if err := execute(ctx, out, debs, "dpkg", "-x", deb, into); err != nil {
			return err
		}
	}
	return placeOpenSMTPD(into)
}

// placeOpenSMTPD puts its helpers where its programs look for them.
func placeOpenSMTPD(into string) error {
	found, err := filepath.Glob(filepath.Join(into, "usr/lib/*/opensmtpd"))
	if err != nil || len(found) == 0 {
		return err
	}
	target := filepath.Join(into, "usr/libexec/opensmtpd")
	if err := os.RemoveAll(target); err != nil {
		return err
	}
	return os.CopyFS(target, os.DirFS(found[0]))
}

func execute(ctx context.Context, out io.Writer, dir, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", program, strings.Join(args, " "), err)
	}
	return nil
}
