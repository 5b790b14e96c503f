package schema

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// plan is a struct type, read once: what to do with each of its names.
type plan struct {
	doc    string
	attrs  []attrPlan
	blocks []blockPlan
}

type attrPlan struct {
	Attribute
	index []int
	shape shape // scalar, list or map
	value scalar
	words []string // the default, parted; nil when there is none
}

type shape uint8

const (
	shapeScalar shape = iota
	shapeList
	shapeMap
)

type blockPlan struct {
	name, doc string
	index     []int
	many      bool
	pointer   bool // the struct, or each element, is behind a pointer
	body      *plan
}

// required reports whether the block can't be left out: a plain struct in which something has to be written.
func (b *blockPlan) required() bool { return !b.many && !b.pointer && b.body.required() }

func (p *plan) required() bool {
	return slices.ContainsFunc(p.attrs, func(a attrPlan) bool { return a.Required }) ||
		slices.ContainsFunc(p.blocks, func(b blockPlan) bool { return b.required() })
}

func (p *plan) schema() Schema {
	s := Schema{Doc: p.doc}
	for _, a := range p.attrs {
		s.Attributes = append(s.Attributes, a.Attribute)
	}
	for _, b := range p.blocks {
		s.Blocks = append(s.Blocks, Block{Name: b.name, Doc: b.doc, Schema: b.body.schema(), Many: b.many, Required: b.required()})
	}
	return s
}

func (p *plan) names() []string {
	var names []string
	for _, a := range p.attrs {
		names = append(names, a.Name)
	}
	for _, b := range p.blocks {
		names = append(names, b.name)
	}
	return names
}

// planOf reads a struct type. Above is the types that it is nested in, so that a type that holds itself is found.
func planOf(t reflect.Type, above []reflect.Type) (*plan, error) {
	if slices.Contains(above, t) {
		return nil, fmt.Errorf("%s holds itself", t)
	}
	p := &plan{}
	if err := p.addFields(t, nil, append(slices.Clip(above), t)); err != nil {
		return nil, err
	}
	names := p.names()
	slices.Sort(names)
	for i := range len(names) - 1 {
		if names[i] == names[i+1] {
			return nil, fmt.Errorf("%s has two fields named %q", t, names[i])
		}
	}
	return p, nil
}

func (p *plan) addFields(t reflect.Type, index []int, above []reflect.Type) error {
	for i := range t.NumField() {
		f := t.Field(i)
		at := append(slices.Clip(index), i)
		tag, tagged := f.Tag.Lookup("mta")
		var err error
		switch {
		case f.Name == "_":
			p.doc = f.Tag.Get("doc")
		case f.Anonymous && !tagged && f.Type.Kind() == reflect.Struct:
			err = p.addFields(f.Type, at, above)
		case !tagged:
		case !f.IsExported():
			err = errors.New("a field with an mta tag is exported")
		default:
			err = p.addField(f, tag, at, above)
		}
		if err != nil {
			return fmt.Errorf("field %s of %s: %w", f.Name, t, err)
		}
	}
	return nil
}

func (p *plan) addField(f reflect.StructField, tag string, index []int, above []reflect.Type) error {
	name, options, _ := strings.Cut(tag, ",")
	if !isName(name) {
		return fmt.Errorf("%q is not a name: small letters, digits and _, a letter first", name)
	}
	var optional, block bool
	for o := range strings.SplitSeq(options, ",") {
		switch o {
		case "":
		case "optional":
			optional = true
		case "block":
			block = true
		default:
			return fmt.Errorf("the mta tag knows optional and block, not %q", o)
		}
	}
	if block {
		b, err := blockOf(f, name, above)
		if err != nil {
			return err
		}
		if optional && b.required() {
			return fmt.Errorf("the block has required attributes, so to be optional it has to be a pointer")
		}
		b.index = index
		p.blocks = append(p.blocks, b)
		return nil
	}
	a, err := attrOf(f, name, optional)
	if err != nil {
		return err
	}
	a.index = index
	p.attrs = append(p.attrs, a)
	return nil
}

func isName(s string) bool {
	for i, c := range []byte(s) {
		if c >= 'a' && c <= 'z' || i > 0 && (c == '_' || c >= '0' && c <= '9') {
			continue
		}
		return false
	}
	return s != ""
}

func blockOf(f reflect.StructField, name string, above []reflect.Type) (blockPlan, error) {
	for _, tag := range []string{"default", "oneof", "type"} {
		if _, ok := f.Tag.Lookup(tag); ok {
			return blockPlan{}, fmt.Errorf("a block has no %s tag", tag)
		}
	}
	b := blockPlan{name: name, doc: f.Tag.Get("doc")}
	t := f.Type
	if b.many = t.Kind() == reflect.Slice; b.many {
		t = t.Elem()
	}
	if b.pointer = t.Kind() == reflect.Pointer; b.pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return blockPlan{}, fmt.Errorf("a block is a struct, a pointer to one or a slice of either, not %s", f.Type)
	}
	var err error
	b.body, err = planOf(t, above)
	return b, err
}

func attrOf(f reflect.StructField, name string, optional bool) (attrPlan, error) {
	a := attrPlan{Attribute: Attribute{Name: name, Doc: f.Tag.Get("doc")}}
	t, kind := f.Type, ""
	// A slice that reads text itself, such as net.IP, is no list.
	if !reflect.PointerTo(t).Implements(textUnmarshaler) {
		switch {
		case t.Kind() == reflect.Slice:
			a.shape, t, kind = shapeList, t.Elem(), "list"
		case t.Kind() == reflect.Map && t.Key().Kind() == reflect.String:
			a.shape, t, kind = shapeMap, t.Elem(), "map"
		}
	}
	var err error
	if a.value, err = scalarOf(t, f.Tag.Get("type")); err != nil {
		return attrPlan{}, err
	}
	a.Type = a.value.word
	if kind != "" {
		a.Type = kind + "(" + a.Type + ")"
	}
	a.Secret = a.value.word == "secret"
	if err := a.setOneOf(f); err != nil {
		return attrPlan{}, err
	}
	def, hasDefault := f.Tag.Lookup("default")
	a.Required = !optional && !hasDefault
	if hasDefault {
		err = a.setDefault(def, t)
	}
	return a, err
}

func (a *attrPlan) setOneOf(f reflect.StructField) error {
	tag, ok := f.Tag.Lookup("oneof")
	if !ok {
		return nil
	}
	a.OneOf = strings.Fields(tag)
	if len(a.OneOf) == 0 || a.Secret || a.value.json != jsonString {
		return errors.New("a oneof tag lists the words that a string may be")
	}
	return nil
}

// setDefault takes a default that is a legal value of type t, so that no operator meets a wrong one.
func (a *attrPlan) setDefault(def string, t reflect.Type) error {
	a.Default, a.words = def, []string{def}
	switch {
	case a.Secret:
		return errors.New("a secret has no default")
	case a.shape == shapeMap:
		return errors.New("a map has no default")
	case a.shape == shapeList:
		a.words = strings.Fields(def)
	}
	for _, w := range a.words {
		if err := a.parse(reflect.New(t).Elem(), w); err != nil {
			return fmt.Errorf("default %q: %w", w, err)
		}
	}
	return nil
}

// parse reads one value from its text.
func (a *attrPlan) parse(v reflect.Value, text string) error {
	if a.OneOf != nil && !slices.Contains(a.OneOf, text) {
		return fmt.Errorf("%s is not one of %s", quoteShort(text), strings.Join(a.OneOf, ", "))
	}
	return a.value.parse(v, text)
}
