//go:build linux

package peer

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	for _, name := range Names() {
		p, err := Find(name)
		if err != nil || p.Name != name || p.Notes == "" {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	other, err := Find("mta:/tmp/older")
	if err != nil || other.Name != "mta:/tmp/older" || other.program != "/tmp/older" {
		t.Errorf("another build: %+v, %v", other, err)
	}
	for name, says := range map[string]string{"sendmail": `no peer "sendmail"; there are: direct, mta`, "exim:/tmp/x": "only ours"} {
		if _, err := Find(name); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMissingSaysWhatToDo(t *testing.T) {
	p, err := Find("haraka")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Missing(t.TempDir()); err == nil || !strings.Contains(err.Error(), "mtabench setup haraka") {
		t.Errorf("%v", err)
	}
	direct, err := Find(Direct)
	if err != nil || direct.Missing(t.TempDir()) != nil {
		t.Errorf("direct needs nothing: %v", err)
	}
}

// render makes the files of a peer, but does not start or own anything.
func render(t *testing.T, name string) map[string]string {
	t.Helper()
	p, err := Find(name)
	if err != nil {
		t.Fatal(err)
	}
	p.prepare = nil
	for file, from := range p.files {
		if filepath.IsAbs(file) {
			delete(p.files, file)
			p.files["abs"+file] = from
		}
	}
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "bin"), 0o700), os.WriteFile(filepath.Join(dir, "bin/noop"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	at, err := p.place(dir, 2600)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for file := range p.files {
		text, err := os.ReadFile(filepath.Join(at.Run, file))
		if err != nil {
			t.Fatal(err)
		}
		files[file] = string(text)
	}
	return files
}

func TestConfigurationsAreWhole(t *testing.T) {
	for _, name := range Names() {
		for file, text := range render(t, name) {
			if strings.Contains(text, "{{") || strings.Contains(text, "<no value>") {
				t.Errorf("%s: %s:\n%s", name, file, text)
			}
		}
	}
}

func TestTunedIsTuned(t *testing.T) {
	for name, word := range map[string]string{"postfix": "in_flow_delay", "opensmtpd": "conn-delay-route"} {
		for _, tuned := range []bool{false, true} {
			full := name
			if tuned {
				full += "-tuned"
			}
			var all strings.Builder
			for _, text := range render(t, full) {
				all.WriteString(text)
			}
			if strings.Contains(all.String(), word) != tuned {
				t.Errorf("%s:\n%s", full, all.String())
			}
		}
	}
	if text := render(t, "mta-noop")["mta.hcl"]; strings.Count(text, "plugin.noop") != 5 {
		t.Errorf("mta-noop:\n%s", text)
	}
	if text := render(t, "mta")["mta.hcl"]; strings.Contains(text, "noop") {
		t.Errorf("mta:\n%s", text)
	}
}

func TestQueuedIsCounted(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a/1-H", "a/1-D", "a/b/2-H"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := countFiles("-H", dir, filepath.Join(dir, "not-there")); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := statusQueued([]byte(`{"version":"1","queue":{"waiting":3,"active":2,"held":1}}`)); n != 6 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	for _, broken := range []string{`{}`, `nonsense`} {
		if _, err := statusQueued([]byte(broken)); err == nil {
			t.Errorf("%s is no error", broken)
		}
	}
}

func TestInstallTellsWhatApt(t *testing.T) {
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "apt-get"), []byte("#!/bin/sh\necho E: no such package\nexit 100\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	var said strings.Builder
	err := Install(t.Context(), t.TempDir(), "exim", &said)
	if err == nil || !strings.Contains(err.Error(), "exim4-daemon-light") || !strings.Contains(err.Error(), "apt-get update") {
		t.Errorf("%v", err)
	}
	if !strings.Contains(said.String(), "no such package") {
		t.Errorf("apt-get's own words: %q", said.String())
	}
}

func TestUnpackedProgramsAreInUsr(t *testing.T) {
	into := filepath.Join(t.TempDir(), "root")
	if err := unpack(t.Context(), t.TempDir(), into, os.Stderr); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"bin", "lib", "sbin"} {
		if err := os.WriteFile(filepath.Join(into, d, "x"), nil, 0o600); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(into, "usr", d, "x")); err != nil {
			t.Error(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(into, "usr/lib/arch/opensmtpd"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(into, "usr/lib/arch/opensmtpd/mail.lmtp"), nil, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := placeOpenSMTPD(into); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(into, "usr/libexec/opensmtpd/mail.lmtp")); err != nil || st.Mode()&0o100 == 0 {
		t.Errorf("%v, %v", st, err)
	}
}
