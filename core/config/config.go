// Package config reads mta.hcl, one file or a directory of them, into a Config of plain Go values.
//
// It refuses what it does not know: every mistake of all files is told at once, with file:line:col, the line itself and,
// where there is one, the word that was meant. It starts nothing and changes nothing; with Options.Describe it has each
// plugin asked what may stand in its config block. When there is a mistake, the Config is nil and only Diagnostics are
// left behind. What came from env, file and credential is never printed.
package config

import (
	"context"
	"net/netip"
	"os"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/schema"
)

// The structs below are the language: their tags drive the decoder, its suggestions, Show and Reference.
//
//	hcl:"name"             a key; ",label" the name of the block; ",block" a block; ",body" a body that a plugin declares
//	is:"path"              what a string means, where the Go type does not say it
//	ref:"plugin"           a reference to a block of that kind; wants:"store" is the kind of plugin
//	default:"5m"           as an operator writes it, a list's words parted by spaces; computed:"..." tells one in words
//	oneof:"a b", min, max  what is taken
//	need:"required"        it has to be written; need:"one" on a list: a single value stands for a list of one

// Config is a whole configuration, the defaults filled in and every reference resolved to the name of a block.
type Config struct {
	Hostname   string         `hcl:"hostname" is:"domain" computed:"the name of this machine" doc:"our name: in EHLO, Received and Reporting-MTA"`
	Domains    []string       `hcl:"domains" is:"domain" doc:"mail for these domains is ours and is taken from anyone"`
	Networks   []netip.Prefix `hcl:"networks" default:"127.0.0.0/8 ::1/128" doc:"who may relay without AUTH"`
	DataDir    string         `hcl:"data_dir" is:"path" default:"/var/lib/mta" doc:"where the queue is kept"`
	Postmaster mail.Address   `hcl:"postmaster" doc:"where mail for postmaster goes"`
	TLS        []*TLS         `hcl:"tls,block" doc:"a certificate and its key"`
	Listeners  []*Listener    `hcl:"listener,block" doc:"where mail comes in"`
	Plugins    []*Plugin      `hcl:"plugin,block" doc:"a program that decides, stores, converts or notifies, in its own process"`
	Pipelines  []*Pipeline    `hcl:"pipeline,block" doc:"which plugins are asked about incoming mail, in the order written"`
	Routes     []*Route       `hcl:"route,block" doc:"where mail goes; the first route that matches a recipient takes it"`
	Observe    []string       `hcl:"observe" ref:"plugin" wants:"observer" doc:"who is told of everything that happens; nothing waits for it; while it is down 10,000 events are kept for it in memory, and further ones are lost and counted"`
	Queue      Queue          `hcl:"queue,block" doc:"how long mail waits, and how hard we try"`
	Bounce     Bounce         `hcl:"bounce,block" doc:"who hears of mail that could not be delivered"`
	Admin      Admin          `hcl:"admin,block" doc:"how the commands and the console reach the server"`
	DNS        DNS            `hcl:"dns,block" doc:"where names are looked up"`

	places places
}

// TLS is a certificate and its key.
type TLS struct {
	Name     string `hcl:",label"`
	CertFile string `hcl:"cert_file" is:"path" need:"required" doc:"PEM, the whole chain; read again when it changes"`
	KeyFile  string `hcl:"key_file" is:"path" need:"required" doc:"PEM; read again when it changes"`
}

// Listener is where mail comes in. Where Auth is set, AUTH is required.
type Listener struct {
	Name         string   `hcl:",label"`
	Address      []string `hcl:"address" is:"listen" need:"required" doc:"where to listen"`
	TLS          string   `hcl:"tls" ref:"tls" doc:"the certificate; STARTTLS is offered with it"`
	Implicit     bool     `hcl:"implicit" default:"false" doc:"TLS from the first byte (port 465)"`
	Auth         string   `hcl:"auth" ref:"plugin" wants:"authenticator" doc:"who says whether a login is right; where it is set, a login is required"`
	InsecureAuth bool     `hcl:"insecure_auth" default:"false" doc:"passwords without TLS; only where every address is loopback"`
	Protocol     string   `hcl:"protocol" oneof:"smtp lmtp" default:"smtp" doc:"what is spoken"`
	Pipeline     string   `hcl:"pipeline" ref:"pipeline" doc:"who is asked about mail that comes in here"`
	BareLF       string   `hcl:"bare_lf" oneof:"reject normalize" default:"reject" doc:"what happens to lines that end without CR"`
	Hide         []string `hcl:"hide" is:"extension" doc:"extensions that are not offered, for clients that stumble over them"`
	Limits       Limits   `hcl:"limits,block" doc:"what one peer, and all of them, may use"`
}

// Limits bounds what a listener takes.
type Limits struct {
	Connections      int         `hcl:"connections" min:"1" default:"1000" doc:"sessions at a time"`
	ConnectionsPerIP int         `hcl:"connections_per_ip" min:"1" default:"20" doc:"sessions at a time from one address"`
	MessageSize      schema.Size `hcl:"message_size" min:"65536" default:"35MiB" doc:"the largest message taken"`
	Recipients       int         `hcl:"recipients" min:"1" default:"100" doc:"recipients of one message"`
}

// Plugin is a program of its own. Timeout is zero where the default of each stage applies.
type Plugin struct {
	Name    string        `hcl:",label"`
	Source  string        `hcl:"source" is:"source" need:"required" doc:"builtin:NAME, or the path of a program"`
	SHA256  string        `hcl:"sha256" is:"sha256" doc:"of the program; mta plugin pin writes it"`
	Timeout time.Duration `hcl:"timeout" min:"1ms" computed:"5s; 1m at \"message\", in store and in convert" doc:"how long an answer may take"`
	OnError string        `hcl:"on_error" oneof:"tempfail accept reject quarantine" default:"tempfail" doc:"what happens to mail when the plugin fails"`
	Args    []string      `hcl:"args" doc:"arguments of the program"`
	Env     []string      `hcl:"env" is:"env" doc:"its environment: NAME passes a variable on, NAME=value sets it"`
	Auth    string        `hcl:"auth" ref:"plugin" wants:"authenticator" doc:"who answers when this plugin asks whether a login is right (an IMAP server does)"`

	Processes     int          `hcl:"processes" min:"1" max:"64" default:"1" doc:"how many processes share the calls; those of one connection go to one process"`
	MaxConcurrent int          `hcl:"max_concurrent" min:"1" max:"4096" default:"1024" doc:"calls at a time to one process; as many more wait, for at most half of their time, and further ones fail at once"`
	User          string       `hcl:"user" doc:"the account that it runs as; the server has to be started by root"`
	Limits        PluginLimits `hcl:"limits,block" doc:"what one process of it may use"`
	Sandbox       Sandbox      `hcl:"sandbox,block" doc:"what it may reach, enforced by the kernel (Landlock), beside its own directory and the system's programs and libraries; without this block, all that its user may"`
	Restart       Restart      `hcl:"restart,block" doc:"the pause before a process is started again: a random part of min, which doubles with each short life up to max"`
	Breaker       Breaker      `hcl:"breaker,block" doc:"when calls are not even tried"`

	Config []byte `hcl:"config,body" doc:"what the plugin itself declares: mta plugin info NAME"` // JSON; nil when the plugin was not asked

	Version string   // as the plugin says; "" when it was not asked
	Kinds   []string // as the plugin says; nil when it was not asked

	settings *settings
}

// PluginLimits bounds one process of a plugin. Zero is no limit but the server's own.
type PluginLimits struct {
	Memory schema.Size `hcl:"memory" min:"33554432" computed:"the server's own" doc:"its data and that of all that it starts, not counting programs and files that are mapped"`
	PIDs   int         `hcl:"pids" min:"16" computed:"the server's own" doc:"processes and threads of its user"`
	NoFile int         `hcl:"nofile" min:"32" computed:"the server's own" doc:"open files and connections"`
}

// Sandbox is what a plugin may reach. Confined is false where the block is not written.
type Sandbox struct {
	Read       []string `hcl:"read" is:"path" doc:"files and directories to read"`
	Write      []string `hcl:"write" is:"path" doc:"files and directories to read and write"`
	ConnectTCP []int    `hcl:"connect_tcp" min:"1" max:"65535" doc:"ports that it may connect to by TCP (Multipath TCP and UDP the kernel does not hold back)"`

	Confined bool
}

// Restart is the pause before a process is started again.
type Restart struct {
	Min time.Duration `hcl:"min" min:"1ms" default:"100ms" doc:"the longest pause after the first short life"`
	Max time.Duration `hcl:"max" min:"1ms" default:"30s" doc:"the longest pause of all"`
}

// Breaker is when calls to a plugin that answers none of them are not even tried.
type Breaker struct {
	Failures int           `hcl:"failures" min:"1" default:"5" doc:"so many calls in a row that failed"`
	Cooldown time.Duration `hcl:"cooldown" min:"10ms" default:"5s" doc:"how long; it doubles, up to a minute, while the one call that then tries fails too"`
}

// Pipeline is what happens to mail that comes in.
type Pipeline struct {
	Name       string        `hcl:",label"`
	DataBudget time.Duration `hcl:"data_budget" min:"1s" max:"9m" default:"4m30s" doc:"for all of stage message together; after it the message is put off (451)"`
	On         []*On         `hcl:"on,block" doc:"what is asked at a stage of the SMTP dialogue"`
}

// On is one block of a pipeline: plugins that are asked at a stage, one after the other.
type On struct {
	Stage   string        `hcl:",label" oneof:"connect helo mail rcpt message"`
	Use     []string      `hcl:"use" ref:"plugin" wants:"filter" need:"required" doc:"who is asked, in this order"`
	When    *Condition    `hcl:"when" doc:"only where this is true"`
	Timeout time.Duration `hcl:"timeout" min:"1ms" computed:"that of the plugin" doc:"how long each answer may take"`
	OnError string        `hcl:"on_error" oneof:"tempfail accept reject quarantine" computed:"that of the plugin" doc:"what happens to mail when a plugin fails; accept means without its edits"`

	OnTimeout  string   `hcl:"on_timeout" oneof:"tempfail accept reject quarantine" computed:"on_error" doc:"when it gives no answer in time"`
	OnOverload string   `hcl:"on_overload" oneof:"tempfail accept reject quarantine" computed:"on_error" doc:"when too many calls wait for it already"`
	Parallel   bool     `hcl:"parallel" default:"false" doc:"ask all of use at once: the worst verdict counts, and they may add header fields and meta values only"`
	Allow      []string `hcl:"allow" oneof:"add_header edit_header auth_results sender recipients body meta quarantine discard" computed:"all of them" doc:"what it may do beside accepting and refusing; anything else is a failure of the step"`
}

// Route is where mail for some recipients goes, in exactly one way: Store, LMTP, Smarthost, MX or Router.
type Route struct {
	Name          string        `hcl:",label"`
	Domains       []string      `hcl:"domains" is:"pattern" computed:"every domain" doc:"of the recipients: a name, or *.name for all below it"`
	Store         string        `hcl:"store" ref:"plugin" wants:"store" doc:"deliver into the mailboxes of this plugin"`
	LMTP          []string      `hcl:"lmtp" is:"hop" need:"one" doc:"deliver to this LMTP server"`
	Smarthost     []string      `hcl:"smarthost" is:"hostport" need:"one" doc:"deliver to this server, whatever the domain; of several, the first that answers"`
	MX            bool          `hcl:"mx" default:"false" doc:"deliver to the hosts that the domain itself names"`
	Router        string        `hcl:"router" ref:"plugin" wants:"router" doc:"ask this plugin for the next host of each recipient"`
	TLS           string        `hcl:"tls" oneof:"none opportunistic require verify" computed:"opportunistic; none with lmtp" doc:"opportunistic uses TLS where it works, require insists on it, verify wants a certificate for the host's name too"`
	User          string        `hcl:"user" doc:"log in with this name"`
	Password      schema.Secret `hcl:"password" doc:"and this password: env(\"NAME\"), file(\"path\") or credential(\"name\")"`
	Convert       []string      `hcl:"convert" ref:"plugin" wants:"converter" doc:"who gives the message the form that the next host takes, in this order"`
	Port          int           `hcl:"port" min:"1" max:"65535" default:"25" doc:"where the hosts of mx listen"`
	AllowLoopback bool          `hcl:"allow_loopback" default:"false" doc:"mx may lead to this machine (for tests)"`
	Source        netip.Addr    `hcl:"source" doc:"the address that we connect from"`
}

// Queue is how long mail waits.
type Queue struct {
	Retry        []time.Duration `hcl:"retry" min:"1s" default:"5m 15m 30m" doc:"how long to wait after each failed attempt, and then the last again"`
	Jitter       float64         `hcl:"jitter" min:"0" max:"0.5" default:"0.1" doc:"how much of a delay is left to chance"`
	WarnAfter    time.Duration   `hcl:"warn_after" default:"4h" doc:"when the sender is told of a delay; 0s is never"`
	Expire       time.Duration   `hcl:"expire" min:"1m" default:"5d" doc:"when mail goes back to its sender, in time that the server runs"`
	MinFree      schema.Size     `hcl:"min_free" default:"1GiB" doc:"free disk below which no mail is taken (452); nothing is lost"`
	Connections  int             `hcl:"connections" min:"1" default:"10" doc:"connections at a time to one destination"`
	Destinations []*Destination  `hcl:"destination,block" doc:"limits for hosts that want their own"`
	Priorities   []*Priority     `hcl:"priority,block" doc:"which mail goes out before other mail to the same destination, or after it; the first block that is true counts, and none for mail whose client has asked for a priority itself (MT-PRIORITY)"`
}

// Priority is how urgent some mail is.
type Priority struct {
	Name  string     `hcl:",label"`
	When  *Condition `hcl:"when" need:"required" doc:"for which mail, as at stage \"message\"; mail of plugins has no session"`
	Level int        `hcl:"level" min:"-9" max:"9" need:"required" doc:"0 is as other mail, more comes before it, less after it"`
}

// Destination is the limits of some hosts, which all mail to them shares, whatever its domain. Rate is zero where there is
// none.
type Destination struct {
	Name        string   `hcl:",label"`
	MX          []string `hcl:"mx" is:"pattern" need:"required" doc:"the hosts: a name, or *.name for all below it"`
	Connections int      `hcl:"connections" min:"1" computed:"queue.connections" doc:"connections at a time, to all these hosts together"`
	Rate        Rate     `hcl:"rate" doc:"messages in a time, such as \"600/1m\", evenly spaced"`
}

// Bounce is who hears of mail that could not be delivered.
type Bounce struct {
	Notify []string `hcl:"notify" ref:"plugin" wants:"bounce notifier" doc:"who words, redirects or suppresses a report; without one the server's own words go out"`
}

// Admin is how the commands and the console reach the server.
type Admin struct {
	Socket string `hcl:"socket" is:"path" computed:"admin.sock in data_dir" doc:"the mta commands speak here"`
	Listen string `hcl:"listen" is:"listen" doc:"a page to look at, /metrics, /healthz, /readyz and the settings that mail programs ask for; none without it"`
}

// DNS is where names are looked up.
type DNS struct {
	Servers []string `hcl:"servers" is:"server" computed:"those of /etc/resolv.conf" doc:"resolvers"`
}

// Options says how far Load goes.
type Options struct {
	// Describe asks a plugin, whose Source, SHA256, Args and Env are set, what it is. Nil leaves the config blocks undecoded
	// and the kinds of plugins unchecked. It is called from several goroutines.
	Describe func(context.Context, *Plugin) (*Description, error)
	// Validate, if set, gives a plugin its decoded Config to find what a schema can't say. It is called from several
	// goroutines.
	Validate func(context.Context, *Plugin) ([]schema.Problem, error)
	// Builtins is the names that may follow "builtin:"; nil leaves them unchecked.
	Builtins []string
	// LookupEnv finds an environment variable; nil is os.LookupEnv.
	LookupEnv func(string) (string, bool)
	// Offline proves the words only: Describe and Validate are not called, no other file is read, and what env, file and
	// credential would give may be missing. Such a Config is not one to run.
	Offline bool
	// Unpinned lets a plugin be without sha256, for the command that writes it.
	Unpinned bool
	// ByHand are the labels of plugins that are started by hand, and need none either.
	ByHand []string
}

func (o Options) lookupEnv(name string) (string, bool) {
	if o.LookupEnv != nil {
		return o.LookupEnv(name)
	}
	return os.LookupEnv(name)
}

// Description is what a plugin says of itself.
type Description struct {
	Version string
	Kinds   []string
	Schema  *schema.Schema // nil: it takes no configuration
}

// Load reads the file at path, or the *.hcl files of the directory at path in the order of their names. The Diagnostics
// may hold warnings only; the Config is nil when they hold an error.
func Load(ctx context.Context, path string, o Options) (*Config, Diagnostics) {
	sources, diags := readSources(path)
	if diags.HasErrors() {
		return nil, diags
	}
	return load(ctx, sources, o)
}

// load is Load without the disk.
func load(ctx context.Context, sources []*source, o Options) (*Config, Diagnostics) {
	d := newDecoder(sources, o)
	for _, s := range sources {
		d.parse(s)
	}
	if !d.diags.HasErrors() {
		d.names()
		d.decode()
		d.plugins(ctx)
		d.check()
	}
	d.finish()
	if d.diags.HasErrors() {
		return nil, d.diags
	}
	return d.cfg, d.diags
}

// Way returns how the route delivers: "store", "lmtp", "smarthost", "router" or "mx".
func (r *Route) Way() string {
	switch {
	case r.Store != "":
		return "store"
	case len(r.LMTP) > 0:
		return "lmtp"
	case len(r.Smarthost) > 0:
		return "smarthost"
	case r.Router != "":
		return "router"
	default:
		return "mx"
	}
}

// Builtin returns the name of a built-in plugin, or "" for a program of its own.
func (p *Plugin) Builtin() string {
	if name, ok := cutBuiltin(p.Source); ok {
		return name
	}
	return "" // a program
}

// Plugin returns the plugin of that name, or nil.
func (c *Config) Plugin(name string) *Plugin {
	for _, p := range c.Plugins {
		if p.Name == name {
			return p
		}
	}
	return nil
}
