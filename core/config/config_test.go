package config

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pabal-mta/mta/sdk/schema"
)

var update = flag.Bool("update", false, "write the golden files anew")

// secret is what env("SECRET") gives: it must be in no output whatever.
const secret = "tOpSeCrEt!"

type usersConfig struct {
	File  string        `mta:"file" type:"path" doc:"the file of accounts"`
	Cache time.Duration `mta:"cache,optional" default:"60s"`
}

type maildirConfig struct {
	Path    string            `mta:"path" type:"path" doc:"where a mailbox is"`
	Aliases map[string]string `mta:"aliases,optional"`
}

type filterConfig struct {
	Delay    time.Duration     `mta:"delay,optional" default:"5m"`
	Networks []netip.Prefix    `mta:"networks,optional"`
	Action   string            `mta:"action,optional" oneof:"reject tag" default:"tag"`
	Count    int               `mta:"count,optional" default:"3"`
	Limit    schema.Size       `mta:"limit,optional"`
	From     string            `mta:"from,optional" type:"address"`
	State    string            `mta:"state,optional" type:"path"`
	Token    schema.Secret     `mta:"token,optional"`
	Words    []string          `mta:"words,optional" default:"a b"`
	Labels   map[string]string `mta:"labels,optional"`
	Rules    []struct {
		Name string `mta:"name" doc:"what it is called"`
	} `mta:"rule,block"`
}

// typedConfig has what filterConfig does not: a value of each other type.
type typedConfig struct {
	Pattern  *regexp.Regexp   `mta:"pattern,optional"`
	Patterns []*regexp.Regexp `mta:"patterns,optional"`
	Peer     netip.Addr       `mta:"peer,optional"`
	Peers    []netip.Addr     `mta:"peers,optional"`
	Strict   bool             `mta:"strict,optional"`
	Share    float64          `mta:"share,optional"`
}

// describe stands for the plugins: what each says of itself.
func describe(_ context.Context, p *Plugin) (*Description, error) {
	name := strings.TrimPrefix(p.Source, "builtin:")
	kinds := map[string][]string{
		"users": {"authenticator"}, "maildir": {"store", "directory"}, "mime": {"converter"}, "bounces": {"bounce"},
		"router": {"router"},
	}
	config := map[string]any{"users": usersConfig{}, "maildir": maildirConfig{}}[name]
	switch filepath.Base(name) {
	case "broken":
		return nil, errors.New("it wrote \"starting up\" to standard output before it was ready\nsdk.Serve sees to that")
	case "filter", "picky", "greylist":
		kinds[name], config = []string{"rcpt", "message"}, filterConfig{}
	case "typed":
		kinds[name], config = []string{"rcpt"}, typedConfig{}
	case "early":
		return &Description{Version: "1.0", Kinds: []string{"connect", "helo"}}, nil
	case "plain", "mime", "bounces", "router":
		return &Description{Version: "1.0", Kinds: kinds[name]}, nil
	}
	s, err := schema.Of(config)
	return &Description{Version: "1.0", Kinds: kinds[name], Schema: s}, err
}

// validate is a plugin "picky" that finds fault, and "typed", which does what the SDK does: whether a text is a regular
// expression only the plugin can say, since each language has its own.
func validate(_ context.Context, p *Plugin) ([]schema.Problem, error) {
	if filepath.Base(p.Source) == "typed" {
		return schema.Decode(p.Config, new(typedConfig)), nil
	}
	if p.Builtin() != "picky" {
		return nil, nil
	}
	return []schema.Problem{
		{Path: []string{"words", "1"}, Summary: `"bad" is a bad word`},
		{Path: []string{"token"}, Summary: "the token " + secret + " is wrong", Detail: "it is " + secret},
		{Path: []string{"rule", "1", "name"}, Summary: "no rule may be called b"},
		{Path: []string{"limit"}, Summary: "a limit is wanted"},
	}, nil
}

func testOptions() Options {
	env := map[string]string{"SECRET": secret, "HOME": "/root"}
	return Options{
		Describe: describe, Validate: validate,
		Builtins:  []string{"bounces", "broken", "early", "filter", "maildir", "mime", "picky", "plain", "router", "users"},
		LookupEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
	}
}

// columns are blanks before a comment: how many there are depends on the length of the longest value, and so on the name
// of the directory for temporary files.
var columns = regexp.MustCompile(` {2,}# `)

// inColumns writes such blanks as two.
func inColumns(text string) string { return columns.ReplaceAllString(text, "  # ") }

// placeTestdata copies a file or a directory of testdata to a new directory that also holds certificates, and returns its path.
func placeTestdata(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	writeCertificates(t, filepath.Join(dir, "tls"))
	src := filepath.Join("testdata", name)
	info, err := os.Stat(src)
	if err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(dir, filepath.Base(name))
	if info.IsDir() {
		err = os.CopyFS(dst, os.DirFS(src))
	} else {
		var b []byte
		if b, err = os.ReadFile(src); err == nil {
			err = os.WriteFile(dst, b, 0o600)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return dst
}

func writeCertificates(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte, err error) {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	newKey := func(name string) *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(k)
		write(name, "PRIVATE KEY", der, err)
		return k
	}
	k := newKey("key.pem")
	newKey("other-key.pem")
	for name, end := range map[string]time.Time{"cert.pem": time.Now().Add(time.Hour), "expired.pem": time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)} {
		c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: end}
		der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
		write(name, "CERTIFICATE", der, err)
	}
}

// golden compares with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs\n--- got\n%s\n--- want\n%s", name, got, want)
	}
}

func printed(t *testing.T, path string, ds Diagnostics) string {
	t.Helper()
	var b strings.Builder
	if err := ds.Print(&b, false); err != nil {
		t.Fatal(err)
	}
	out := strings.ReplaceAll(b.String(), filepath.Dir(path)+"/", "")
	if strings.Contains(out+ds.Error(), secret) || strings.Contains(out, "hunter2") {
		t.Errorf("a secret is printed:\n%s", out)
	}
	return out
}

// TestWrongFiles loads every file of testdata, each named after what is wrong with it.
func TestWrongFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.hcl")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(strings.TrimSuffix(name, ".hcl"), func(t *testing.T) {
			path := placeTestdata(t, name)
			c, ds := Load(t.Context(), path, testOptions())
			if len(ds) == 0 {
				t.Error("nothing was found")
			}
			if (c == nil) != ds.HasErrors() {
				t.Errorf("Config is nil: %v, errors: %v", c == nil, ds.HasErrors())
			}
			golden(t, strings.TrimSuffix(name, ".hcl")+".txt", printed(t, path, ds))
		})
	}
}

func TestDirectories(t *testing.T) {
	for _, name := range []string{"dir-merged", "dir-twice", "dir-empty"} {
		t.Run(name, func(t *testing.T) {
			path := placeTestdata(t, name)
			c, ds := Load(t.Context(), path, testOptions())
			golden(t, name+".txt", printed(t, path, ds))
			if name == "dir-merged" && (c == nil || len(c.Routes) != 2 || c.Routes[0].Name != "local") {
				t.Errorf("the files were not merged in the order of their names: %+v", c)
			}
		})
	}
}

func load1(t *testing.T, name string) (*Config, string) {
	t.Helper()
	path := placeTestdata(t, name)
	c, ds := Load(t.Context(), path, testOptions())
	if len(ds) > 0 {
		t.Fatal(printed(t, path, ds))
	}
	return c, path
}

func show(t *testing.T, c *Config) string {
	t.Helper()
	var b strings.Builder
	if err := c.Show(&b); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), secret) {
		t.Errorf("a secret is shown:\n%s", &b)
	}
	return b.String()
}

func TestShow(t *testing.T) {
	for _, name := range []string{"good/smallest", "good/production"} {
		t.Run(name, func(t *testing.T) {
			c, path := load1(t, name+".hcl")
			dir := filepath.Dir(path)
			golden(t, name+".show", inColumns(strings.ReplaceAll(show(t, c), dir, "DIR")))
		})
	}
}

// TestShowLoads proves that what Show writes is a file with the same meaning, but for the secrets.
func TestShowLoads(t *testing.T) {
	c, path := load1(t, "good/production.hcl")
	first := show(t, c)
	if err := os.WriteFile(path, []byte(first), 0o600); err != nil {
		t.Fatal(err)
	}
	again, ds := Load(t.Context(), path, testOptions())
	if ds.HasErrors() {
		t.Fatal(printed(t, path, ds))
	}
	without := func(s string) (out []string) {
		for line := range strings.Lines(s) {
			key, _, _ := strings.Cut(line, " #")
			out = append(out, strings.Join(strings.Fields(key), " "))
		}
		return out
	}
	a, b := without(first), without(show(t, again))
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			t.Fatalf("line %d: %s\nthen:   %s", i+1, a[i], b[i])
		}
	}
	if len(a) != len(b) {
		t.Errorf("%d lines, then %d", len(a), len(b))
	}
}

func TestProduction(t *testing.T) {
	c, path := load1(t, "good/production.hcl")
	dir := filepath.Dir(path)
	local, partner := c.Routes[0], c.Routes[2]
	if got := strings.Join(local.Domains, " "); got != "example.com xn--bcher-kva.example" {
		t.Errorf("route local: domains = %s", got)
	}
	if local.Way() != "store" || local.Store != "mailboxes" || partner.Way() != "smarthost" || string(partner.Password) != secret {
		t.Errorf("routes: %+v, %+v", local, partner)
	}
	if got := c.Routes[1].LMTP[0]; got != "unix:"+dir+"/run/lmtp" {
		t.Errorf("lmtp = %s", got)
	}
	if o := c.Origin(partner, "smarthost"); o.Line == 0 || o.Default || o.String() != path+":95" {
		t.Errorf("origin of smarthost: %+v", o)
	}
	if o := c.Origin(c.Listeners[0], "protocol"); o.String() != "(default)" {
		t.Errorf("origin of protocol: %+v", o)
	}
	if o := c.Origin(partner, "password"); !o.Secret {
		t.Errorf("origin of password: %+v", o)
	}
	var greylist struct {
		Delay, State, Token string
		Limit               int
		Rule                []struct{ Name string }
		Labels              map[string]string
	}
	if err := json.Unmarshal(c.Plugin("greylist").Config, &greylist); err != nil {
		t.Fatal(err)
	}
	if greylist.Delay != "1d12h" || greylist.Token != secret || greylist.Limit != 12 || greylist.State != dir+"/state/greylist" ||
		len(greylist.Rule) != 2 || greylist.Rule[1].Name != secret || greylist.Labels["b c"] != "2" {
		t.Errorf("config of greylist: %+v", greylist)
	}
	var decoded filterConfig
	if problems := schema.Decode(c.Plugin("greylist").Config, &decoded); len(problems) > 0 || decoded.Delay != 36*time.Hour {
		t.Errorf("the plugin reads %+v, %v", decoded, problems)
	}
}

func TestSteps(t *testing.T) {
	c, _ := load1(t, "good/production.hcl")
	steps := c.Steps("inbound")
	if len(steps) != 2 || len(c.Steps("outbound")) != 0 || len(c.Steps("none")) != 0 {
		t.Fatalf("steps: %+v", steps)
	}
	if s := steps[0]; s.Stage != "rcpt" || s.Plugin != "greylist" || s.Timeout != 2*time.Second || s.OnError != "tempfail" {
		t.Errorf("first step: %+v", s)
	}
	if s := steps[1]; s.Stage != "message" || s.Timeout != 30*time.Second || s.OnError != "accept" {
		t.Errorf("second step: %+v", s)
	}
	ok, err := steps[0].When.Eval(Facts{RemoteIP: netip.MustParseAddr("192.0.2.1")})
	if !ok || err != nil {
		t.Errorf("when: %v, %v", ok, err)
	}
}

// TestOffline proves a file whose world is missing: no environment, no certificates, no plugins.
func TestOffline(t *testing.T) {
	src, err := os.ReadFile("testdata/good/production.hcl")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "mta.hcl")
	if err := os.WriteFile(path, src, 0o600); err != nil {
		t.Fatal(err)
	}
	o := testOptions()
	o.Offline = true
	o.LookupEnv = func(string) (string, bool) { t.Error("the environment was asked"); return "", false }
	o.Describe = func(context.Context, *Plugin) (*Description, error) {
		t.Error("a plugin was asked")
		return nil, errors.New("no")
	}
	c, ds := Load(t.Context(), path, o)
	if c == nil || len(ds) > 0 {
		t.Fatal(printed(t, path, ds))
	}
	show(t, c)
}

func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large.hcl")
	if err := os.WriteFile(large, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none.hcl"): "none.hcl: can't be read: no such file or directory",
		large:                          "large.hcl: can't be read: it has more than 262144 bytes",
		os.DevNull:                     "null: can't be read: it is not a regular file",
	} {
		if c, ds := Load(t.Context(), path, Options{}); c != nil || !strings.HasSuffix(ds.Error(), want) {
			t.Errorf("%s: %v", path, ds)
		}
	}
}

// TestUnpinned is what `mta plugin pin` does: it loads a file without the sum, and writes it.
func TestUnpinned(t *testing.T) {
	src, err := os.ReadFile("testdata/plugin-not-pinned.hcl")
	if err != nil {
		t.Fatal(err)
	}
	sum := strings.Repeat("ab", 32)
	out, err := Pin(src, "greylist", sum)
	if err != nil || !strings.Contains(string(out), "plugin \"greylist\" {\n  source = \"plugins/greylist\"\n  sha256 = \""+sum+"\"\n}") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := Pin(src, "none", sum); err == nil {
		t.Error("a plugin that is not there was pinned")
	}
	if _, err := Pin([]byte("plugin {{"), "greylist", sum); err == nil {
		t.Error("a broken file was written")
	}
}

func TestFormat(t *testing.T) {
	files, err := filepath.Glob("testdata/*/*.hcl")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		once, ds := Format(src)
		if len(ds) > 0 {
			t.Fatalf("%s: %v", file, ds)
		}
		if twice, _ := Format(once); !bytes.Equal(once, twice) {
			t.Errorf("%s: formatting what was formatted changes it", file)
		}
	}
	broken := []byte("listener \"mx\" {\n  a  = \n")
	if out, ds := Format(broken); !ds.HasErrors() || !bytes.Equal(out, broken) || ds[0].Line == 0 {
		t.Errorf("%v: %s", ds, out)
	}
}

// TestReference proves that every key stands in the reference with what it is for.
func TestReference(t *testing.T) {
	var b strings.Builder
	if err := Reference(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "reference.txt", b.String())
	for i, line := range strings.Split(b.String(), "\n") {
		if strings.TrimSpace(line) == "" && line != "" {
			t.Errorf("line %d: a key has no doc", i+1)
		}
	}
}

func FuzzLoad(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.hcl")
	more, _ := filepath.Glob("testdata/*/*.hcl")
	for _, file := range append(files, more...) {
		src, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	f.Add([]byte("a = " + strings.Repeat("[", 5000)))
	f.Add([]byte("a = " + strings.Repeat("!", 5000) + "true"))
	o := testOptions()
	f.Fuzz(func(t *testing.T, src []byte) {
		if len(src) > 1<<13 {
			return
		}
		o.Offline = len(src)%2 == 0
		if bytes.Contains(src, []byte("_file")) || bytes.Contains(src, []byte("file(")) || bytes.Contains(src, []byte("credential(")) {
			o.Offline = true // no file of this machine is read
		}
		c, ds := load(t.Context(), []*source{newSource("mta.hcl", src)}, o)
		if (c == nil) != ds.HasErrors() {
			t.Errorf("Config is nil: %v, diagnostics: %v", c == nil, ds)
		}
		var b strings.Builder
		if err := ds.Print(&b, true); err != nil {
			t.Error(err)
		}
		if c != nil {
			if err := c.Show(&b); err != nil {
				t.Error(err)
			}
		}
		if out, ds := Format(src); !ds.HasErrors() {
			Format(out)
		}
	})
}

func TestBuiltin(t *testing.T) {
	for source, want := range map[string]string{"builtin:users": "users", "/usr/lib/mta/plugins/greylist": "", "": ""} {
		if got := (&Plugin{Source: source}).Builtin(); got != want {
			t.Errorf("%q is the built-in %q, not %q", source, got, want)
		}
	}
}
