package config

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/schema"
)

// decoder carries the work of one Load: first the names of all blocks, then their bodies, then what they mean together.
type decoder struct {
	options    Options
	sources    []*source
	byName     map[string]*source
	dir        string
	cfg        *Config
	diags      Diagnostics
	scope      *hcl.EvalContext
	labels     map[string]map[string]hcl.Range // of the blocks that can be referred to
	hasDomains bool
	used       map[ref]bool
	uses       []use
	secrets    []hcl.Range // literals that no excerpt shows
	hidden     []string    // secret values that no finding quotes, whoever wrote its words
	bodies     map[*Plugin]*hclsyntax.Block
}

// ref is what an expression such as plugin.users means.
type ref struct{ kind, name string }

var refType = cty.Capsule("reference", reflect.TypeFor[ref]())

// use is a place where a plugin is put to work.
type use struct {
	plugin string
	path   string // "listener.auth"
	wants  string // "authenticator"
	stage  string // of a filter
	at     hcl.Range
}

func newDecoder(sources []*source, o Options) *decoder {
	d := &decoder{
		options: o, sources: sources, byName: map[string]*source{}, cfg: &Config{places: places{}},
		labels: map[string]map[string]hcl.Range{}, used: map[ref]bool{}, bodies: map[*Plugin]*hclsyntax.Block{},
	}
	for _, s := range sources {
		d.byName[s.name] = s
		d.dir = s.dir
	}
	for _, kind := range []string{"plugin", "tls", "pipeline"} {
		d.labels[kind] = map[string]hcl.Range{}
	}
	return d
}

// maxFindings bounds what one Load tells; who has that many has not written the file by hand.
const maxFindings = 200

func (d *decoder) report(g Diagnostic) {
	if len(d.diags) < maxFindings || g.Severity == Error && !d.diags.HasErrors() {
		d.diags = append(d.diags, g)
	}
}

func (d *decoder) errorAt(r hcl.Range, format string, args ...any) {
	d.hintAt(r, "", format, args...)
}

func (d *decoder) hintAt(r hcl.Range, hint, format string, args ...any) {
	g := Diagnostic{Summary: fmt.Sprintf(format, args...), Hint: hint}
	g.at(r)
	d.report(g)
}

func (d *decoder) warnAt(r hcl.Range, format string, args ...any) {
	g := Diagnostic{Severity: Warning, Summary: fmt.Sprintf(format, args...)}
	g.at(r)
	d.report(g)
}

// names is the first pass: labels become values that expressions can refer to.
func (d *decoder) names() {
	for _, s := range d.sources {
		for _, b := range s.body.Blocks {
			if known := d.labels[b.Type]; known != nil && len(b.Labels) == 1 {
				if _, twice := known[b.Labels[0]]; !twice {
					known[b.Labels[0]] = b.LabelRanges[0]
				}
			}
		}
	}
	d.scope = &hcl.EvalContext{Variables: map[string]cty.Value{}, Functions: d.functions()}
	for kind, labels := range d.labels {
		refs := map[string]cty.Value{}
		for name := range labels {
			refs[name] = cty.CapsuleVal(refType, &ref{kind, name})
		}
		d.scope.Variables[kind] = cty.ObjectVal(refs)
	}
	d.domains()
}

// domains gives the key of that name a value that routes can refer to. Its mistakes are told where it is decoded.
func (d *decoder) domains() {
	for _, s := range d.sources {
		attr := s.body.Attributes["domains"]
		if attr == nil || d.hasDomains {
			continue
		}
		before := len(d.diags)
		v, ok := d.eval(attr.Expr)
		d.diags = d.diags[:before]
		out := cty.DynamicVal
		if ok {
			out = v.cty
		}
		if v.secret {
			out = out.Mark(sensitive{})
		}
		d.scope.Variables["domains"], d.hasDomains = out, true
	}
}

// decode is the second pass: the bodies.
func (d *decoder) decode() {
	top := &body{fields: fieldsOf(reflect.TypeFor[Config]()), target: reflect.ValueOf(d.cfg).Elem(), seen: map[string]hcl.Range{}}
	for _, s := range d.sources {
		d.body(top, s.body)
	}
	d.defaults(top)
	d.computed()
}

// body is a block while it is decoded. The top of all files is one body.
type body struct {
	kind   string // the block's type; "" at the top
	label  string
	fields []field
	target reflect.Value
	seen   map[string]hcl.Range // keys, and blocks that stand once: where
	labels map[string]hcl.Range // of blocks in it: type and label
	meant  []string             // what misspelt keys were likely meant to be
	def    hcl.Range
}

// block returns what the target is known by.
func (b *body) block() any { return b.target.Addr().Interface() }

// title names the block in a message: route "local".
func (b *body) title() string {
	if b.label == "" {
		return b.kind
	}
	return fmt.Sprintf("%s %q", b.kind, b.label)
}

func (b *body) find(name string) *field {
	for i := range b.fields {
		if f := &b.fields[i]; f.name == name && f.role != roleLabel {
			return f
		}
	}
	return nil
}

func (b *body) names() []string {
	var names []string
	for _, f := range b.fields {
		if f.role != roleLabel {
			names = append(names, f.name)
		}
	}
	return names
}

func (d *decoder) body(b *body, in *hclsyntax.Body) {
	for _, attr := range sortedAttributes(in) {
		f := b.find(attr.Name)
		switch {
		case f == nil:
			d.unknownKey(b, attr)
		case f.role != roleKey:
			d.errorAt(attr.NameRange, "%s is a block; write %s { … } without =", f.name, f.name)
		case d.once(b, f.name, attr.NameRange):
			d.key(b, f, attr)
		}
	}
	for _, inner := range in.Blocks {
		f := b.find(inner.Type)
		switch {
		case f == nil:
			d.unknownBlock(b, inner)
		case f.role == roleKey:
			d.errorAt(inner.TypeRange, "%s is a key; write %s = …", f.name, f.name)
		case f.role == roleBody:
			d.pluginBody(b, f, inner)
		default:
			d.block(b, f, inner)
		}
	}
}

// sortedAttributes returns the attributes in the order written.
func sortedAttributes(in *hclsyntax.Body) []*hclsyntax.Attribute {
	attrs := make([]*hclsyntax.Attribute, 0, len(in.Attributes))
	for _, a := range in.Attributes {
		attrs = append(attrs, a)
	}
	slices.SortFunc(attrs, func(a, b *hclsyntax.Attribute) int { return a.SrcRange.Start.Byte - b.SrcRange.Start.Byte })
	return attrs
}

// once reports a second key or block of a name, with both places.
func (d *decoder) once(b *body, name string, at hcl.Range) bool {
	if first, twice := b.seen[name]; twice {
		d.errorAt(at, "%s is set twice; the other is at %s", name, placeOf(first))
		return false
	}
	b.seen[name] = at
	return true
}

func placeOf(r hcl.Range) string {
	return fmt.Sprintf("%s:%d:%d", r.Filename, r.Start.Line, r.Start.Column)
}

func (d *decoder) unknownKey(b *body, attr *hclsyntax.Attribute) {
	names := b.names()
	near := suggest(attr.Name, names)
	if f := b.find(near); f != nil {
		// What was likely meant is not missing too, and a misspelt password is still one.
		b.meant = append(b.meant, near)
		if _, ok := d.cfg.places[key{b.block(), near}]; !ok {
			d.cfg.places[key{b.block(), near}] = place{def: attr.NameRange, value: attr.Expr.Range(), wrong: true}
		}
		if f.typ == reflect.TypeFor[schema.Secret]() {
			d.hide(attr.Expr)
		}
	}
	d.unknown(b, attr.Name, attr.NameRange, "key", names)
}

func (d *decoder) unknownBlock(b *body, inner *hclsyntax.Block) {
	d.unknown(b, inner.Type, inner.TypeRange, "block", b.names())
}

func (d *decoder) unknown(b *body, name string, at hcl.Range, what string, names []string) {
	hint := ""
	if suggest(name, names) == "" {
		hint = "known here: " + strings.Join(names, ", ")
	}
	in := b.kind + " has"
	if b.kind == "" {
		in = "there is"
	}
	d.hintAt(at, hint, "%s no %s %q%s", in, what, name, meant(name, names))
}

func (d *decoder) block(b *body, f *field, in *hclsyntax.Block) {
	t := f.block()
	label, ok := d.label(t, in)
	if !ok {
		return
	}
	inner := &body{kind: in.Type, label: label, fields: fieldsOf(t), seen: map[string]hcl.Range{}, def: in.DefRange()}
	target := b.target.Field(f.index)
	if f.list {
		if !d.onceLabelled(b, inner, in) {
			return
		}
		fresh := reflect.New(t)
		target.Set(reflect.Append(target, fresh))
		target = fresh.Elem()
	} else if !d.once(b, f.name, in.TypeRange) {
		return
	}
	inner.target = target
	d.cfg.places[key{inner.block(), ""}] = place{def: in.DefRange(), value: in.DefRange()}
	for _, lf := range inner.fields {
		if lf.role == roleLabel {
			target.Field(lf.index).SetString(label)
		}
	}
	d.body(inner, in.Body)
	d.defaults(inner)
}

// onceLabelled reports a second block of one name, with both places. Blocks named by a stage may be repeated.
func (d *decoder) onceLabelled(b, inner *body, in *hclsyntax.Block) bool {
	if slices.ContainsFunc(inner.fields, func(f field) bool { return f.role == roleLabel && f.oneof != nil }) {
		return true
	}
	if b.labels == nil {
		b.labels = map[string]hcl.Range{}
	}
	id := in.Type + " " + inner.label
	if first, twice := b.labels[id]; twice {
		d.errorAt(in.LabelRanges[0], "there are two blocks %s; the other is at %s", inner.title(), placeOf(first))
		return false
	}
	b.labels[id] = in.LabelRanges[0]
	return true
}

// label checks the labels of a block against its type.
func (d *decoder) label(t reflect.Type, in *hclsyntax.Block) (string, bool) {
	var f field
	for _, x := range fieldsOf(t) {
		if x.role == roleLabel {
			f = x
		}
	}
	switch {
	case f.typ == nil && len(in.Labels) > 0:
		d.errorAt(in.LabelRanges[0], "%s has no name; there is one %s only", in.Type, in.Type)
		return "", false
	case f.typ == nil:
		return "", true
	case len(in.Labels) == 0:
		d.errorAt(in.TypeRange, "%s wants a name: %s \"NAME\" { … }", in.Type, in.Type)
		return "", false
	case len(in.Labels) > 1:
		d.errorAt(in.LabelRanges[1], "%s has one name only", in.Type)
		return "", false
	case f.oneof != nil && !slices.Contains(f.oneof, in.Labels[0]):
		d.errorAt(in.LabelRanges[0], "%s is not one of %s%s", short(in.Labels[0]), quoteAll(f.oneof, ", "), meant(in.Labels[0], f.oneof))
		return "", false
	case f.oneof == nil && !isName(in.Labels[0]):
		d.errorAt(in.LabelRanges[0], "%s is not a name: letters, digits, _ and -, a letter first", short(in.Labels[0]))
		return "", false
	}
	return in.Labels[0], true
}

func (d *decoder) pluginBody(b *body, f *field, in *hclsyntax.Block) {
	if len(in.Labels) > 0 {
		d.errorAt(in.LabelRanges[0], "config has no name")
		return
	}
	if !d.once(b, f.name, in.TypeRange) {
		return
	}
	if p, ok := b.block().(*Plugin); ok {
		d.bodies[p] = in
	}
}

// defaults fills in what is not written, and reports what has to be.
func (d *decoder) defaults(b *body) {
	var missing []string
	for i := range b.fields {
		f := &b.fields[i]
		target := b.target.Field(f.index)
		_, written := b.seen[f.name]
		switch {
		case written || slices.Contains(b.meant, f.name):
		case f.required:
			missing = append(missing, f.name)
		case f.role == roleBlock && !f.list:
			d.defaults(&body{kind: f.name, fields: fieldsOf(f.typ), target: target})
		case f.role == roleKey && f.hasDef:
			d.setDefault(b, f, target)
		}
	}
	if missing != nil {
		d.errorAt(b.def, "%s has no %s", b.title(), strings.Join(missing, " and no "))
	}
}

// setDefault reads the default of a tag. One that is wrong would be ours, and a test reads them all.
func (d *decoder) setDefault(b *body, f *field, target reflect.Value) {
	d.cfg.places[key{b.block(), f.name}] = place{isDefault: true}
	s := scalarOf(f)
	for _, word := range f.defaults() {
		x, err := s.parse(word, d.dir)
		if err != nil {
			panic(fmt.Sprintf("default of %s: %v", f.name, err))
		}
		v := reflect.ValueOf(x).Convert(f.typ)
		if f.list {
			target.Set(reflect.Append(target, v))
		} else {
			target.Set(v)
		}
	}
}

// computed fills in the defaults that depend on something.
func (d *decoder) computed() {
	c := d.cfg
	if c.Hostname == "" {
		c.Hostname = machineName()
		c.places.byDefault(c, "hostname")
	}
	if c.Admin.Socket == "" && c.DataDir != "" {
		c.Admin.Socket = absolute(c.DataDir, "admin.sock")
		c.places.byDefault(&c.Admin, "socket")
	}
	for _, p := range c.Plugins {
		_, p.Sandbox.Confined = c.places[key{&p.Sandbox, ""}]
	}
	for _, r := range c.Routes {
		if r.TLS == "" {
			c.places.byDefault(r, "tls")
			r.TLS = "opportunistic"
			if len(r.LMTP) > 0 {
				r.TLS = "none"
			}
		}
		for _, name := range idleKeys(r.Way()) {
			if c.places[key{r, name}].isDefault {
				delete(c.places, key{r, name})
			}
		}
	}
	for _, dest := range c.Queue.Destinations {
		if dest.Connections == 0 {
			dest.Connections = c.Queue.Connections
			c.places.byDefault(dest, "connections")
		}
	}
}

// machineName returns the machine's name where it is one that a peer would take.
func machineName() string {
	name, err := os.Hostname()
	if err == nil {
		name, err = mail.ParseDomain(strings.TrimSuffix(name, "."))
	}
	if err != nil {
		return "localhost"
	}
	return name
}
