package config

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/schema"
)

// settings is a plugin's config block, or a block in it, decoded with the schema that the plugin declares.
type settings struct {
	schema *schema.Schema
	def    hcl.Range
	attrs  map[string]setting
	blocks map[string][]*settings
}

// setting is one key of a config block.
type setting struct {
	json  any    // string, bool, json.Number, a slice or a map of those
	text  string // as it would be written; never a secret
	place place
}

// settings decodes the config block of a plugin.
func (d *decoder) settings(p *Plugin, s *schema.Schema) *settings {
	if s == nil {
		s = &schema.Schema{}
	}
	in := d.bodies[p]
	if in == nil {
		d.missing(s, d.cfg.places.at(p, ""), fmt.Sprintf("plugin %q", p.Name), "config { … } with ")
		return &settings{schema: s}
	}
	return d.settingsBody(p.Name, s, in)
}

// missing reports what a body lacks, before is what would have to be written around it.
func (d *decoder) missing(s *schema.Schema, at hcl.Range, where, before string) {
	var names, docs []string
	for _, a := range s.Attributes {
		if a.Required {
			names, docs = append(names, a.Name), append(docs, a.Doc)
		}
	}
	for _, b := range s.Blocks {
		if b.Required {
			names, docs = append(names, b.Name+" { … }"), append(docs, b.Doc)
		}
	}
	if names != nil {
		d.hintAt(at, strings.Join(docs, "\n"), "%s has no %s%s", where, before, strings.Join(names, " and no "))
	}
}

func (d *decoder) settingsBody(plugin string, s *schema.Schema, in *hclsyntax.Block) *settings {
	out := &settings{schema: s, def: in.DefRange(), attrs: map[string]setting{}, blocks: map[string][]*settings{}}
	where := fmt.Sprintf("config of plugin %q", plugin)
	if in.Type != "config" {
		where = in.Type + " of plugin " + strconv.Quote(plugin)
	}
	names := namesOf(s)
	var meant []string // what misspelt keys were likely meant to be: they are not missing too
	for _, attr := range sortedAttributes(in.Body) {
		i := slices.IndexFunc(s.Attributes, func(a schema.Attribute) bool { return a.Name == attr.Name })
		if i >= 0 {
			d.setting(out, &s.Attributes[i], attr)
			continue
		}
		if near := d.unknownSetting(s, where, attr, names); near != "" {
			meant = append(meant, near)
		}
	}
	for _, inner := range in.Body.Blocks {
		d.settingsBlock(out, plugin, where, inner, names)
	}
	d.missing(out.lacks(meant), out.def, where, "")
	return out
}

func namesOf(s *schema.Schema) []string {
	var names []string
	for _, a := range s.Attributes {
		names = append(names, a.Name)
	}
	for _, b := range s.Blocks {
		names = append(names, b.Name)
	}
	return names
}

// lacks returns the part of the schema that is not written, nor meant by what is.
func (s *settings) lacks(meant []string) *schema.Schema {
	rest := &schema.Schema{}
	for _, a := range s.schema.Attributes {
		if _, ok := s.attrs[a.Name]; !ok && !slices.Contains(meant, a.Name) {
			rest.Attributes = append(rest.Attributes, a)
		}
	}
	for _, b := range s.schema.Blocks {
		if len(s.blocks[b.Name]) == 0 && !slices.Contains(meant, b.Name) {
			rest.Blocks = append(rest.Blocks, b)
		}
	}
	return rest
}

// unknownSetting reports a key that the schema has not, and returns the one that was likely meant.
func (d *decoder) unknownSetting(s *schema.Schema, where string, attr *hclsyntax.Attribute, names []string) string {
	near := suggest(attr.Name, names)
	if slices.ContainsFunc(s.Attributes, func(a schema.Attribute) bool { return a.Name == near && a.Secret }) {
		d.hide(attr.Expr)
	}
	if slices.ContainsFunc(s.Blocks, func(b schema.Block) bool { return b.Name == attr.Name }) {
		d.errorAt(attr.NameRange, "%s is a block; write %s { … } without =", attr.Name, attr.Name)
		return attr.Name
	}
	d.hintAt(attr.NameRange, knownHere(near, names), "%s has no key %q%s", where, attr.Name, meant(attr.Name, names))
	return near
}

func knownHere(near string, names []string) string {
	switch {
	case near != "":
		return ""
	case len(names) == 0:
		return "it takes no configuration"
	default:
		return "known here: " + strings.Join(names, ", ")
	}
}

func (d *decoder) settingsBlock(out *settings, plugin, where string, in *hclsyntax.Block, names []string) {
	i := slices.IndexFunc(out.schema.Blocks, func(b schema.Block) bool { return b.Name == in.Type })
	switch {
	case i < 0 && slices.Contains(names, in.Type):
		d.errorAt(in.TypeRange, "%s is a key; write %s = …", in.Type, in.Type)
	case i < 0:
		d.hintAt(in.TypeRange, knownHere(suggest(in.Type, names), names), "%s has no block %q%s", where, in.Type, meant(in.Type, names))
	case len(in.Labels) > 0:
		d.errorAt(in.LabelRanges[0], "%s has no name", in.Type)
	case len(out.blocks[in.Type]) > 0 && !out.schema.Blocks[i].Many:
		d.errorAt(in.TypeRange, "%s is there twice; the other is at %s", in.Type, placeOf(out.blocks[in.Type][0].def))
	default:
		out.blocks[in.Type] = append(out.blocks[in.Type], d.settingsBody(plugin, &out.schema.Blocks[i].Schema, in))
	}
}

// setting decodes one key. A key whose value is wrong is kept, so that it is not reported as missing too.
func (d *decoder) setting(out *settings, a *schema.Attribute, attr *hclsyntax.Attribute) {
	p := place{def: attr.NameRange, value: attr.Expr.Range(), secret: a.Secret}
	if a.Secret {
		d.hide(attr.Expr)
	}
	v, ok := d.eval(attr.Expr)
	p.secret = p.secret || v.secret
	if t, isTuple := attr.Expr.(*hclsyntax.TupleConsExpr); isTuple {
		for _, e := range t.Exprs {
			p.items = append(p.items, e.Range())
		}
	}
	s := setting{place: p}
	if ok && p.secret {
		d.conceal(v.cty)
	}
	if ok {
		r := settingReader{d: d, attr: a, place: p, at: p.value}
		s.json, s.text = r.read(v.cty)
	}
	if p.secret {
		s.text = `"(secret)"`
	}
	out.attrs[a.Name] = s
}

// settingReader turns the value of one key into JSON.
type settingReader struct {
	d     *decoder
	attr  *schema.Attribute
	place place
	at    hcl.Range
}

func (r settingReader) read(v cty.Value) (any, string) {
	shape, elem := r.attr.Elem()
	t := v.Type()
	switch {
	case shape == "list" && (t.IsTupleType() || t.IsListType()):
		return r.list(v, elem)
	case shape == "map" && (t.IsObjectType() || t.IsMapType()):
		return r.table(v, elem)
	case shape != "":
		r.wrong("%s wants a %s of %s, not %s", r.attr.Name, shape, elem, formName(t))
		return nil, ""
	default:
		return r.scalar(v, elem)
	}
}

func (r settingReader) list(v cty.Value, elem string) (any, string) {
	list, words := []any{}, []string{}
	for it := v.ElementIterator(); it.Next(); {
		_, x := it.Element()
		if len(list) < len(r.place.items) {
			r.at = r.place.items[len(list)]
		}
		j, text := r.scalar(x, elem)
		list, words = append(list, j), append(words, text)
	}
	return list, "[" + strings.Join(words, ", ") + "]"
}

func (r settingReader) table(v cty.Value, elem string) (any, string) {
	table, words := map[string]any{}, []string{}
	for it := v.ElementIterator(); it.Next(); {
		k, x := it.Element()
		j, text := r.scalar(x, elem)
		table[k.AsString()] = j
		words = append(words, quoteHCL(k.AsString())+" = "+text)
	}
	return table, "{ " + strings.Join(words, ", ") + " }"
}

// scalar checks one value. What only the plugin can know, such as its kind of regular expression, is left to it.
func (r settingReader) scalar(v cty.Value, word string) (any, string) {
	form := formOf(word)
	t := v.Type()
	if t != form && (word != "size" || t != cty.Number) || v.IsNull() {
		r.wrong("%s wants %s, not %s", r.attr.Name, wordFor(word), formName(t))
		return nil, ""
	}
	text := textOf(v)
	if r.attr.OneOf != nil && !slices.Contains(r.attr.OneOf, text) {
		if r.place.secret {
			r.wrong("the secret value of %s is not one of %s", r.attr.Name, quoteAll(r.attr.OneOf, ", "))
		} else {
			r.wrong("%s is not one of %s%s", short(text), quoteAll(r.attr.OneOf, ", "), meant(text, r.attr.OneOf))
		}
		return nil, ""
	}
	text, err := checkSetting(word, text, r.d.dir)
	if err != nil && r.place.secret {
		r.wrong("the secret value of %s is not %s", r.attr.Name, wordFor(word))
	} else if err != nil {
		r.wrong("%s", err)
	}
	if err != nil {
		return nil, ""
	}
	switch t {
	case cty.Number:
		return json.Number(text), text
	case cty.Bool:
		return v.True(), text
	default:
		return text, quoteHCL(text)
	}
}

func (r settingReader) wrong(format string, args ...any) { r.d.errorAt(r.at, format, args...) }

func formOf(word string) cty.Type {
	switch word {
	case "bool":
		return cty.Bool
	case "int", "float":
		return cty.Number
	default:
		return cty.String
	}
}

// wordFor is a type of a schema in words.
func wordFor(word string) string {
	words := map[string]string{
		"bool": "true or false", "int": "a whole number", "float": "a number", "duration": `a duration such as "5m"`,
		"size": `a size such as "35MiB"`, "cidr": `a network such as "10.0.0.0/8"`, "ip": "an IP address",
		"regex": "a regular expression", "address": "a mail address", "path": "a path", "secret": "a string",
	}
	if w, ok := words[word]; ok {
		return w
	}
	return "a string"
}

// checkSetting checks the text of a value; a relative path becomes absolute.
func checkSetting(word, text, dir string) (string, error) {
	var err error
	switch word {
	case "duration":
		_, err = schema.ParseDuration(text)
	case "size":
		_, err = schema.ParseSize(text)
	case "cidr":
		_, err = parsePrefix(text)
	case "ip":
		_, err = parseIP(text)
	case "address":
		_, err = mail.ParseAddress(text)
	case "int":
		if _, err = strconv.ParseInt(text, 10, 64); err != nil {
			err = fmt.Errorf("%s is not a whole number", short(text))
		}
	case "path":
		return parsePath(text, dir)
	}
	return text, err
}

// json returns what the plugin is given.
func (s *settings) json() []byte {
	b, err := json.Marshal(s.object())
	if err != nil {
		return []byte("{}") // a setting holds only what JSON has
	}
	return b
}

func (s *settings) object() map[string]any {
	out := map[string]any{}
	for name, a := range s.attrs {
		if a.json != nil {
			out[name] = a.json
		}
	}
	for name, blocks := range s.blocks {
		var list []any
		for _, b := range blocks {
			list = append(list, b.object())
		}
		out[name] = list
		if i := slices.IndexFunc(s.schema.Blocks, func(b schema.Block) bool { return b.Name == name }); !s.schema.Blocks[i].Many {
			out[name] = list[0]
		}
	}
	return out
}

// at finds the place of a path of a schema.Problem, as far as it was written.
func (s *settings) at(path []string) (hcl.Range, bool) {
	if s == nil || s.attrs == nil {
		return hcl.Range{}, false
	}
	if len(path) == 0 {
		return s.def, true
	}
	if a, ok := s.attrs[path[0]]; ok {
		if len(path) > 1 {
			if i, err := strconv.Atoi(path[1]); err == nil && i >= 0 && i < len(a.place.items) {
				return a.place.items[i], true
			}
		}
		return a.place.value, true
	}
	blocks, rest := s.blocks[path[0]], path[1:]
	i := 0
	if len(rest) > 0 && len(blocks) > 0 {
		if n, err := strconv.Atoi(rest[0]); err == nil {
			i, rest = n, rest[1:]
		}
	}
	if i < 0 || i >= len(blocks) {
		return s.def, true
	}
	return blocks[i].at(rest)
}

// looseBody evaluates a config block without a schema, for the names in it.
func (d *decoder) looseBody(in *hclsyntax.Body) {
	for _, attr := range sortedAttributes(in) {
		d.eval(attr.Expr)
	}
	for _, b := range in.Blocks {
		d.looseBody(b.Body)
	}
}
