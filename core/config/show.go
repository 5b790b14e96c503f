package config

import (
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/schema"
)

// Show writes the configuration in force, laid out as a file, with every default and where each value comes from. What is
// secret stands as "(secret)". Keys that are not set and have no default are left out.
func (c *Config) Show(w io.Writer) error {
	s := &shower{places: c.places}
	s.body(reflect.ValueOf(c).Elem())
	_, err := w.Write(hclwrite.Format([]byte(s.b.String())))
	return err
}

type shower struct {
	b      strings.Builder
	places places
}

func (s *shower) line(text, comment string) {
	if comment != "" {
		text += " # " + clean(comment)
	}
	s.b.WriteString(text + "\n")
}

// body writes the keys of a struct and then its blocks.
func (s *shower) body(v reflect.Value) {
	block := v.Addr().Interface()
	fields := fieldsOf(v.Type())
	for i := range fields {
		if f := &fields[i]; f.role == roleKey {
			s.key(block, f, v.Field(f.index))
		}
	}
	if p, ok := block.(*Plugin); ok {
		s.plugin(p)
	}
	for i := range fields {
		if f := &fields[i]; f.role == roleBlock {
			s.blocks(f, v.Field(f.index))
		}
	}
}

func (s *shower) key(block any, f *field, v reflect.Value) {
	p, ok := s.places[key{block, f.name}]
	if !ok {
		return
	}
	comment := p.origin().String()
	if p.secret {
		hidden := `"(secret)"`
		if f.list {
			hidden = "[" + hidden + "]"
		}
		s.line(f.name+" = "+hidden, comment)
		return
	}
	s.line(f.name+" = "+valueText(f, v), comment)
}

// valueText writes a value as it would stand in a file.
func valueText(f *field, v reflect.Value) string {
	if f.list && (!f.one || v.Len() != 1) {
		words := make([]string, v.Len())
		for i := range v.Len() {
			words[i] = oneText(f, v.Index(i))
		}
		return "[" + strings.Join(words, ", ") + "]"
	}
	if f.list {
		v = v.Index(0)
	}
	return oneText(f, v)
}

func oneText(f *field, v reflect.Value) string {
	if f.ref != "" {
		return f.ref + "." + v.String()
	}
	return literal(v)
}

// literal writes one value as it would stand in a file.
func literal(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case string:
		return quoteHCL(x)
	case time.Duration:
		return quoteHCL(durationText(x))
	case schema.Secret:
		return quoteHCL("(secret)")
	case *Condition:
		return x.String()
	case schema.Size, Rate, netip.Addr, netip.Prefix, mail.Address:
		return quoteHCL(fmt.Sprint(x))
	case float64:
		return strconv.FormatFloat(x, 'g', -1, 64)
	default:
		return fmt.Sprint(x)
	}
}

// quoteHCL quotes a string for HCL, where "${" has a meaning too.
func quoteHCL(s string) string {
	return string(hclwrite.TokensForValue(cty.StringVal(s)).Bytes())
}

func (s *shower) blocks(f *field, v reflect.Value) {
	if !f.list {
		s.block(f.name, "", v)
		return
	}
	for i := range v.Len() {
		e := v.Index(i).Elem()
		label := ""
		for _, x := range fieldsOf(e.Type()) {
			if x.role == roleLabel {
				label = e.Field(x.index).String()
			}
		}
		s.block(f.name, label, e)
	}
}

func (s *shower) block(name, label string, v reflect.Value) {
	comment := s.places[key{v.Addr().Interface(), ""}].origin().String()
	mark := len(s.b.String())
	s.line("", "")
	if label != "" {
		name += " " + quoteHCL(label)
	}
	s.line(name+" {", comment)
	head := len(s.b.String())
	s.body(v)
	if len(s.b.String()) == head && comment == "" { // nothing is set, and nothing was written
		text := s.b.String()[:mark]
		s.b.Reset()
		s.b.WriteString(text)
		return
	}
	s.line("}", "")
}

// plugin writes the config block.
func (s *shower) plugin(p *Plugin) {
	if p.settings == nil || p.settings.attrs == nil && len(p.settings.schema.Attributes) == 0 {
		return
	}
	s.line("config {", p.settings.origin())
	s.settings(p.settings)
	s.line("}", "")
}

func (s *settings) origin() string { return place{def: s.def}.origin().String() }

func (s *shower) settings(c *settings) {
	for _, a := range c.schema.Attributes {
		if set, ok := c.attrs[a.Name]; ok {
			s.line(a.Name+" = "+set.text, set.place.origin().String())
		} else if a.Default != "" {
			s.line(a.Name+" = "+defaultText(a), "(default)")
		}
	}
	for _, b := range c.schema.Blocks {
		for _, inner := range c.blocks[b.Name] {
			s.line(b.Name+" {", inner.origin())
			s.settings(inner)
			s.line("}", "")
		}
	}
}

// defaultText writes the default of a plugin's attribute.
func defaultText(a schema.Attribute) string {
	shape, elem := a.Elem()
	quote := func(word string) string {
		if formOf(elem) != cty.String {
			return word
		}
		return quoteHCL(word)
	}
	switch {
	case a.Secret:
		return `"(secret)"`
	case shape != "list":
		return quote(a.Default)
	}
	var words []string
	for word := range strings.FieldsSeq(a.Default) {
		words = append(words, quote(word))
	}
	return "[" + strings.Join(words, ", ") + "]"
}

// Reference writes every block and key of mta.hcl with its form, its default and what it is for, and then what a when can
// ask. It is made of the tags that the decoder reads.
func Reference(w io.Writer) error {
	var b strings.Builder
	referenceBody(&b, reflect.TypeFor[Config](), "")
	referenceWhen(&b)
	b.WriteString("\nFunctions, in every key but when: env(\"NAME\"), file(\"PATH\"), credential(\"NAME\") of systemd, and\n" +
		"join(\", \", LIST). What the first three return is secret and never printed.\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func referenceBody(b *strings.Builder, t reflect.Type, margin string) {
	fields := fieldsOf(t)
	for i := range fields {
		if f := &fields[i]; f.role == roleKey {
			fmt.Fprintf(b, "%s%s = %s\n%s    %s\n", margin, f.name, f.describe(), margin, f.doc)
			if d := f.fallback(); d != "" {
				fmt.Fprintf(b, "%s    %s\n", margin, d)
			}
		}
	}
	for i := range fields {
		f := &fields[i]
		switch f.role {
		case roleBody:
			fmt.Fprintf(b, "%s%s { … }\n%s    %s\n", margin, f.name, margin, f.doc)
		case roleBlock:
			fmt.Fprintf(b, "\n%s%s%s {\n%s    %s\n\n", margin, f.name, labelText(f), margin, f.doc)
			referenceBody(b, f.block(), margin+"  ")
			fmt.Fprintf(b, "%s}\n", margin)
		}
	}
}

func labelText(f *field) string {
	for _, x := range fieldsOf(f.block()) {
		if x.role == roleLabel && x.oneof != nil {
			return " " + quoteAll(x.oneof, " | ")
		}
	}
	if labelled(f.block()) {
		return ` "NAME"`
	}
	return ""
}

// fallback tells what holds when a key is not written.
func (f *field) fallback() string {
	switch {
	case f.required:
		return "required"
	case f.computed != "":
		return "default: " + f.computed
	case !f.hasDef:
		return ""
	}
	words := f.defaults()
	s := scalarOf(f)
	for i, word := range words {
		if s.form == cty.String {
			words[i] = quoteHCL(word)
		}
	}
	if f.list {
		return "default: [" + strings.Join(words, ", ") + "]"
	}
	return "default: " + words[0]
}

func referenceWhen(b *strings.Builder) {
	b.WriteString("\nwhen = CONDITION\n    made of the names below, with ! && || == != < <= > >= + - * / % and ( )\n\n")
	for _, f := range facts() {
		known := ""
		if f.stages != "chmrD" {
			known = "; at " + stagesOf(f)
		}
		fmt.Fprintf(b, "    %-22s %s%s\n", f.name, f.doc, known)
	}
	var names []string
	for name := range constants {
		names = append(names, name)
	}
	slices.Sort(names)
	fmt.Fprintf(b, "    %-22s %s\n", strings.Join(names, ", "), "as in 8 * MiB")
	for _, line := range []string{"cidr_contains(NETWORK, IP)", "starts_with(TEXT, START)", "ends_with(TEXT, END)", "lower(TEXT)", "contains(LIST, TEXT)", "meta(NAME): what an earlier step has set, or \"\""} {
		fmt.Fprintf(b, "    %s\n", line)
	}
}
