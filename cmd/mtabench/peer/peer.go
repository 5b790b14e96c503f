//go:build linux

// Package peer knows the mail servers that are measured: how each is set up, started, asked and stopped, and what in its
// configuration is not as it ships. A peer is data and a few functions; its configuration is a template in conf. Everything
// a peer keeps is below its place, which is made afresh at each start.
package peer

import (
	"crypto/sha256"
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
)

//go:embed conf
var conf embed.FS

// Peer is a mail server that relays everything to the sink.
type Peer struct {
	Name  string
	Kit   string // what setup has to install for it; "" is nothing
	Notes string // what is not as it ships

	program string            // which must be there
	port    int               // where it listens
	tuned   bool              // for the templates
	plugin  bool              // of ours: with the plugin that does nothing
	files   map[string]string // below the place → template below conf
	prepare func(Place) error
	command func(Place) []string
	daemon  bool                 // command returns when the server runs
	stop    func(Place) []string // nil: SIGTERM to the process that was started
	flush   func(Place) []string // tries all queued mail again
	retry   func(at Place, domain string) []string
	list    func(Place) []string // lists the queued mail of the generator; nil: it is not asked
	queued  func(Place) (int, error)
	version func(Place) string
}

// Place is where a peer is set up.
type Place struct {
	Dir     string // of the bench: programs that setup installed
	Run     string // of the peer: configuration, spool, log
	Port    int    // where it listens
	Sink    int    // where it delivers to
	Tuned   bool
	Binary  string // of our server
	Noop    string // of the plugin; "" is none
	NoopSum string
	Meta    string // of Postfix: where its own list of files is
}

// Direct is no server at all: the generator sends straight to the sink. It is the limit of the machine.
const Direct = "direct"

// Names are the peers that there are.
func Names() []string {
	var names []string
	for _, p := range all() {
		names = append(names, p.Name)
	}
	return names
}

// Find returns the peer of that name. Ours may carry a path, as in mta:/tmp/mta, to measure another build of it.
func Find(name string) (*Peer, error) {
	plain, path, _ := strings.Cut(name, ":")
	i := slices.IndexFunc(all(), func(p *Peer) bool { return p.Name == plain })
	switch {
	case i < 0:
		return nil, fmt.Errorf("there is no peer %q; there are: %s", plain, strings.Join(Names(), ", "))
	case path != "" && all()[i].Kit != "mta":
		return nil, fmt.Errorf("%s: only ours may carry a path", name)
	}
	p := all()[i]
	if path != "" {
		p.Name, p.program = name, path
	}
	return p, nil
}

func all() []*Peer {
	return []*Peer{
		{Name: Direct, Notes: "no server: the generator straight into the sink"},
		ours("mta", false), ours("mta-noop", true),
		postfix("postfix", false), postfix("postfix-tuned", true),
		opensmtpd("opensmtpd", false), opensmtpd("opensmtpd-tuned", true),
		exim(), haraka(),
	}
}

// Users are the accounts that peers run under.
func Users() []string {
	return []string{"postfix", "postdrop", "opensmtpd", "opensmtpq", "Debian-exim"}
}

// Usr are the folders with the programs of the peers that setup has installed below dir.
func Usr(dir string) []string {
	var usr []string
	for _, kit := range Kits() {
		usr = append(usr, filepath.Join(root(dir, kit), "usr"))
	}
	return usr
}

func root(dir, kit string) string { return filepath.Join(dir, "root", kit) }

// Missing says in words what a peer needs and does not have; nil when it can run.
func (p *Peer) Missing(dir string) error {
	path := strings.ReplaceAll(p.program, "{dir}", dir)
	if path == "" {
		return nil
	}
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("%s is not installed (%w); try: mtabench setup %s", p.Name, err, p.Kit)
	}
	return nil
}

// Version is what the program of a peer says it is.
func (p *Peer) Version(dir string) string {
	if p.version == nil {
		return ""
	}
	return p.version(Place{Dir: dir, Binary: strings.ReplaceAll(p.program, "{dir}", dir)})
}

// place makes the peer's place afresh, with its configuration.
func (p *Peer) place(dir string, sink int) (Place, error) {
	at := Place{Dir: dir, Run: filepath.Join(dir, "run", strings.ReplaceAll(p.Name, "/", "-")), Port: p.port, Sink: sink,
		Tuned: p.tuned, Binary: strings.ReplaceAll(p.program, "{dir}", dir), Meta: "/etc/postfix"}
	if p.plugin {
		at.Noop = filepath.Join(dir, "bin", "noop")
		program, err := os.ReadFile(at.Noop)
		if err != nil {
			return at, err
		}
		at.NoopSum = fmt.Sprintf("%x", sha256.Sum256(program))
	}
	if _, err := os.Stat(filepath.Join(root(dir, "postfix"), "etc/postfix")); err == nil {
		at.Meta = filepath.Join(root(dir, "postfix"), "etc/postfix")
	}
	if err := os.RemoveAll(at.Run); err != nil {
		return at, err
	}
	if err := os.MkdirAll(at.Run, 0o755); err != nil {
		return at, err
	}
	for file, from := range p.files {
		if err := at.write(file, from); err != nil {
			return at, fmt.Errorf("%s: %s: %w", p.Name, file, err)
		}
	}
	if p.prepare != nil {
		return at, p.prepare(at)
	}
	return at, nil
}

// write fills a template in. A file with an absolute name is written there: the ground is covered.
func (at Place) write(file, from string) error {
	if !filepath.IsAbs(file) {
		file = filepath.Join(at.Run, file)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	t, err := template.ParseFS(conf, "conf/"+from)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	return t.Execute(f, at)
}
