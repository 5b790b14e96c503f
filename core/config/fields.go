package config

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// field is one key, block or label of a block, as the tags of a struct declare it.
type field struct {
	name     string
	role     role
	index    int
	typ      reflect.Type // of one value: a list's element
	list     bool
	one      bool // a single value stands for a list of one
	required bool
	is       string
	ref      string // kind of block that is referred to
	wants    string // kind of plugin
	oneof    []string
	min, max string
	def      string
	hasDef   bool
	computed string
	doc      string
}

type role uint8

const (
	roleKey role = iota
	roleLabel
	roleBlock
	roleBody
)

// fieldsOf reads the tags of a struct.
func fieldsOf(t reflect.Type) []field {
	var fields []field
	for i := range t.NumField() {
		sf := t.Field(i)
		tag, ok := sf.Tag.Lookup("hcl")
		if !ok {
			continue
		}
		f := field{index: i, typ: sf.Type}
		name, option, _ := strings.Cut(tag, ",")
		f.name = name
		f.role = map[string]role{"": roleKey, "label": roleLabel, "block": roleBlock, "body": roleBody}[option]
		f.read(sf.Tag)
		if sf.Type.Kind() == reflect.Slice && f.role != roleBody {
			f.list, f.typ = true, sf.Type.Elem()
		}
		fields = append(fields, f)
	}
	return fields
}

func (f *field) read(tag reflect.StructTag) {
	f.is, f.ref, f.wants = tag.Get("is"), tag.Get("ref"), tag.Get("wants")
	if words := strings.Fields(tag.Get("oneof")); len(words) > 0 {
		f.oneof = words
	}
	f.min, f.max = tag.Get("min"), tag.Get("max")
	f.def, f.hasDef = tag.Lookup("default")
	f.computed, f.doc = tag.Get("computed"), tag.Get("doc")
	f.required = tag.Get("need") == "required"
	f.one = tag.Get("need") == "one"
}

// defaults returns the default as the words that an operator would write.
func (f *field) defaults() []string {
	if f.list {
		return strings.Fields(f.def)
	}
	return []string{f.def}
}

// block returns the type of struct that a block is decoded into.
func (f *field) block() reflect.Type {
	if f.typ.Kind() == reflect.Pointer {
		return f.typ.Elem()
	}
	return f.typ
}

// labelled reports whether a block of this type has a label.
func labelled(t reflect.Type) bool {
	return slices.ContainsFunc(fieldsOf(t), func(f field) bool { return f.role == roleLabel })
}

// describe tells in words what a key takes.
func (f *field) describe() string {
	one := f.describeOne()
	switch {
	case !f.list:
		return one
	case f.one:
		return one + ", or a list of them"
	default:
		return "list of " + plural(one)
	}
}

// plural puts the noun at the start of a phrase into the plural; what is quoted or a reference has none.
func plural(phrase string) string {
	end := strings.IndexAny(phrase, ",:.\"")
	if i := strings.Index(phrase, " such as"); i >= 0 {
		end = i
	}
	if end < 0 {
		end = len(phrase)
	}
	noun := phrase[:end]
	switch {
	case noun == "" || strings.HasPrefix(phrase[end:], "."):
		return phrase
	case strings.HasSuffix(noun, "s"):
		noun += "es"
	default:
		noun += "s"
	}
	return noun + phrase[end:]
}

func (f *field) describeOne() string {
	switch {
	case f.ref != "":
		return f.ref + ".NAME" + f.wanted()
	case f.typ == reflect.TypeFor[*Condition]():
		return "condition, see below"
	case len(f.oneof) > 0:
		return quoteAll(f.oneof, " | ")
	default:
		return scalarOf(f).name
	}
}

func (f *field) wanted() string {
	if f.wants == "" {
		return ""
	}
	return ", " + article(f.wants)
}

func quoteAll(words []string, between string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = strconv.Quote(w)
	}
	return strings.Join(quoted, between)
}

// article puts "a" or "an" before a noun.
func article(noun string) string {
	if noun != "" && strings.ContainsRune("aeiou", rune(noun[0])) {
		return "an " + noun
	}
	return "a " + noun
}
