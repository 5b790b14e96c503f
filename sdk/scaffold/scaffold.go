// Package scaffold writes a new plugin: a program that builds, is tested and runs, with the configuration of a server to
// try it in.
//
// It refuses names that can't be a Go package or a block of mta.hcl, kinds that do not exist, and to write over a file
// that is there. When it fails it leaves what it has written so far.
package scaffold

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"go/format"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"
)

//go:embed templates
var templates embed.FS

// Kinds are the kinds of plugin that Write writes, as the server names them.
func Kinds() []string {
	return []string{"authenticator", "store", "directory", "converter", "bounce", "router", "observer", "connect", "helo", "mail", "rcpt", "message"}
}

// Plan is what is to be written.
type Plan struct {
	Name    string   // of the plugin, its program and its module
	Lang    string   // go or python
	Kinds   []string // empty: message
	Dir     string   // made when it is missing; what is in it stays
	Version string   // of the module github.com/pabal-mta/mta that a Go plugin requires; unused with SDK
	SDK     string   // a clone of that module, used in its place; "" for none
	Extra   fs.FS    // the Python SDK, which goes into src as it is; may be nil for Go
}

// Write writes the plugin and returns the names of its files.
func (p Plan) Write() ([]string, error) {
	if len(p.Kinds) == 0 {
		p.Kinds = []string{"message"}
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	files, err := p.render()
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
		if _, err := os.Lstat(filepath.Join(p.Dir, name)); err == nil {
			return nil, fmt.Errorf("%s is there already; nothing was written", filepath.Join(p.Dir, name))
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if err := write(filepath.Join(p.Dir, name), files[name]); err != nil {
			return nil, err
		}
	}
	return names, nil
}

func write(name string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if bytes.HasPrefix(data, []byte("#!")) {
		mode = 0o755
	}
	return os.WriteFile(name, data, mode)
}

var isName = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,39}$`).MatchString

func (p Plan) check() error {
	if !isName(p.Name) {
		return fmt.Errorf("%q can't be the name of a plugin: small letters, digits, - and _, a letter first, at most 40", p.Name)
	}
	if p.Lang != "go" && p.Lang != "python" {
		return fmt.Errorf("there is no plugin in %q: go or python", p.Lang)
	}
	for _, k := range p.Kinds {
		if !slices.Contains(Kinds(), k) {
			return fmt.Errorf("there is no kind %q; there are %s", k, strings.Join(Kinds(), ", "))
		}
	}
	if slices.Contains(p.Kinds, "directory") && !slices.Contains(p.Kinds, "store") {
		return errors.New("a directory goes with a store: -kinds store,directory")
	}
	if p.SDK == "" {
		return nil
	}
	data, err := os.ReadFile(filepath.Join(p.SDK, "go.mod"))
	if err != nil || !IsClone(data) {
		return fmt.Errorf("%s holds no clone of github.com/pabal-mta/mta", p.SDK)
	}
	return nil
}

// IsClone tells by a go.mod whether it is that of this module.
func IsClone(gomod []byte) bool {
	return bytes.HasPrefix(gomod, []byte("module github.com/pabal-mta/mta\n"))
}

// render returns the files by their names.
func (p Plan) render() (map[string][]byte, error) {
	files := make(map[string][]byte)
	dir := "templates/" + p.Lang
	t, err := template.New("").Funcs(template.FuncMap{"join": strings.Join}).ParseFS(templates, dir+"/*.tmpl", "templates/*.tmpl")
	if err != nil {
		return nil, err
	}
	for _, sub := range []string{dir, "templates"} {
		list, err := fs.Glob(templates, sub+"/*.tmpl")
		if err != nil {
			return nil, err
		}
		for _, name := range list {
			if err := p.execute(t, path.Base(name), files); err != nil {
				return nil, err
			}
		}
	}
	if p.Lang == "go" && p.SDK != "" {
		if files["go.sum"], err = os.ReadFile(filepath.Join(p.SDK, "go.sum")); err != nil {
			return nil, err
		}
	}
	return files, p.addExtra(files)
}

func (p Plan) execute(t *template.Template, name string, files map[string][]byte) error {
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, name, p); err != nil {
		return err
	}
	out := b.Bytes()
	name = strings.ReplaceAll(strings.TrimSuffix(name, ".tmpl"), "--", "/")
	if strings.HasSuffix(name, ".go") {
		src, err := format.Source(out)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		out = src
	}
	files[name] = out
	return nil
}

func (p Plan) addExtra(files map[string][]byte) error {
	if p.Lang != "python" || p.Extra == nil {
		return nil
	}
	return fs.WalkDir(p.Extra, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files["src/"+name], err = fs.ReadFile(p.Extra, name)
		return err
	})
}

// Has reports whether the plugin is of one of these kinds.
func (p Plan) Has(kinds ...string) bool {
	return slices.ContainsFunc(kinds, func(k string) bool { return slices.Contains(p.Kinds, k) })
}

// Filters are the kinds that are stages of a pipeline, in the order of a dialogue.
func (p Plan) Filters() []string {
	return slices.DeleteFunc([]string{"connect", "helo", "mail", "rcpt", "message"}, func(k string) bool { return !p.Has(k) })
}

// Type is the name of the plugin as a type.
func (p Plan) Type() string {
	var b strings.Builder
	for word := range strings.FieldsFuncSeq(p.Name, func(c rune) bool { return c == '-' || c == '_' }) {
		b.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	if b.String() == "Config" {
		return "ConfigPlugin"
	}
	return b.String()
}

// Block is the name of the plugin as a word of mta.hcl.
func (p Plan) Block() string { return strings.ReplaceAll(p.Name, "-", "_") }

// Source is the program that is run, beside mta.hcl.
func (p Plan) Source() string {
	if p.Lang == "python" {
		return "./" + p.Name + ".pyz"
	}
	return "./" + p.Name
}

// Requires are the require lines of the clone, for a Go plugin that is built with it: with them and its go.sum nothing has
// to be looked up.
func (p Plan) Requires() ([]string, error) {
	data, err := os.ReadFile(filepath.Join(p.SDK, "go.mod"))
	if err != nil {
		return nil, err
	}
	var list []string
	inside := false
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "require (":
			inside = true
		case line == ")":
			inside = false
		case inside && line != "":
			if !strings.HasSuffix(line, "// indirect") {
				line += " // indirect"
			}
			list = append(list, line)
		}
	}
	return list, nil
}
