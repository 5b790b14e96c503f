package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Problem is one mistake in a configuration. It is also an error, so that a plugin's New can return one.
type Problem struct {
	Path    []string `json:"path,omitempty"` // names of blocks and of an attribute; "0" for the first of several
	Summary string   `json:"summary"`
	Detail  string   `json:"detail,omitempty"`
}

// Error returns the problem on one line.
func (p Problem) Error() string {
	var parts []string
	for _, s := range []string{strings.Join(p.Path, "."), p.Summary, p.Detail} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, ": ")
}

// Decode reads a configuration into the struct that into points to, with the defaults of what is not written. It tells
// every problem it finds, and then leaves the struct as it was. A null counts as not written.
func Decode(data []byte, into any) []Problem {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return []Problem{{Summary: "no configuration can be read", Detail: fmt.Sprintf("it would go into a %T, which is no pointer to a struct", into)}}
	}
	p, err := planOf(v.Elem().Type(), nil)
	if err != nil {
		return []Problem{{Summary: "the plugin's configuration is wrong in itself", Detail: err.Error()}}
	}
	if len(bytes.TrimSpace(data)) == 0 {
		data = []byte("{}")
	}
	fresh := reflect.New(v.Elem().Type()).Elem()
	fresh.Set(v.Elem())
	d := &decoder{}
	d.body(p, data, fresh, nil)
	if len(d.problems) == 0 {
		v.Elem().Set(fresh)
	}
	return d.problems
}

type decoder struct{ problems []Problem }

func (d *decoder) report(path []string, summary, detail string) {
	d.problems = append(d.problems, Problem{Path: slices.Clone(path), Summary: summary, Detail: detail})
}

func (d *decoder) body(p *plan, data []byte, v reflect.Value, path []string) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		d.report(path, "an object is wanted", "")
		return
	}
	for i := range p.attrs {
		a := &p.attrs[i]
		d.attribute(a, raw[a.Name], v.FieldByIndex(a.index), append(slices.Clip(path), a.Name))
		delete(raw, a.Name)
	}
	for i := range p.blocks {
		b := &p.blocks[i]
		d.block(b, raw[b.name], v.FieldByIndex(b.index), append(slices.Clip(path), b.name))
		delete(raw, b.name)
	}
	for _, name := range slices.Sorted(maps.Keys(raw)) {
		detail := "nothing may be set here"
		if names := p.names(); len(names) > 0 {
			detail = "what may be set here: " + strings.Join(names, ", ")
		}
		d.report(append(slices.Clip(path), name), fmt.Sprintf("%s is not known", quoteShort(name)), detail)
	}
}

func (d *decoder) attribute(a *attrPlan, raw json.RawMessage, v reflect.Value, path []string) {
	v.SetZero()
	switch {
	case unset(raw) && a.Required:
		d.report(path, fmt.Sprintf("%q is missing", a.Name), a.Doc)
	case unset(raw):
		a.fillDefault(v)
	case a.shape == shapeList:
		d.list(a, raw, v, path)
	case a.shape == shapeMap:
		d.table(a, raw, v, path)
	default:
		d.scalar(a, raw, v, path)
	}
}

func unset(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// fillDefault sets the words that setDefault has found good.
func (a *attrPlan) fillDefault(v reflect.Value) {
	if a.words == nil {
		return
	}
	if a.shape == shapeScalar {
		_ = a.parse(v, a.words[0])
		return
	}
	list := reflect.MakeSlice(v.Type(), len(a.words), len(a.words))
	for i, w := range a.words {
		_ = a.parse(list.Index(i), w)
	}
	v.Set(list)
}

func (d *decoder) list(a *attrPlan, raw json.RawMessage, v reflect.Value, path []string) {
	var items []json.RawMessage
	if err := json.Unmarshal(raw, &items); err != nil {
		d.wrong(a, path, "a list is wanted")
		return
	}
	list := reflect.MakeSlice(v.Type(), len(items), len(items))
	for i, item := range items {
		d.scalar(a, item, list.Index(i), append(slices.Clip(path), strconv.Itoa(i)))
	}
	v.Set(list)
}

func (d *decoder) table(a *attrPlan, raw json.RawMessage, v reflect.Value, path []string) {
	var items map[string]json.RawMessage
	if err := json.Unmarshal(raw, &items); err != nil {
		d.wrong(a, path, "a map is wanted")
		return
	}
	table := reflect.MakeMapWithSize(v.Type(), len(items))
	for _, key := range slices.Sorted(maps.Keys(items)) {
		item := reflect.New(v.Type().Elem()).Elem()
		d.scalar(a, items[key], item, append(slices.Clip(path), key))
		table.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), item)
	}
	v.Set(table)
}

func (d *decoder) scalar(a *attrPlan, raw json.RawMessage, v reflect.Value, path []string) {
	text, form := textOf(raw)
	if form&a.value.json == 0 {
		d.wrong(a, path, a.value.json.wanted())
		return
	}
	if err := a.parse(v, text); err != nil {
		d.wrong(a, path, err.Error())
	}
}

func (d *decoder) wrong(a *attrPlan, path []string, detail string) {
	d.report(path, fmt.Sprintf("%q has a wrong value", a.Name), detail)
}

// textOf returns the text of a JSON scalar and its form, 0 for what is none.
func textOf(raw json.RawMessage) (string, jsonForm) {
	switch raw[0] {
	case '"':
		var s string
		if json.Unmarshal(raw, &s) != nil {
			return "", 0
		}
		return s, jsonString
	case 't', 'f':
		return string(raw), jsonBool
	case '{', '[', 'n':
		return "", 0
	default:
		return string(raw), jsonNumber
	}
}

func (f jsonForm) wanted() string {
	switch f {
	case jsonBool:
		return "true or false is wanted"
	case jsonNumber:
		return "a number is wanted"
	default:
		return "a string is wanted"
	}
}

func (d *decoder) block(b *blockPlan, raw json.RawMessage, v reflect.Value, path []string) {
	v.SetZero()
	switch {
	case b.many:
		d.blocks(b, raw, v, path)
	case unset(raw) && b.pointer:
	case unset(raw) && b.required():
		d.report(path, fmt.Sprintf("the block %q is missing", b.name), b.doc)
	case unset(raw):
		d.body(b.body, []byte("{}"), v, path)
	default:
		d.body(b.body, raw, b.target(v), path)
	}
}

// target returns the struct to fill, made where it is behind a pointer.
func (b *blockPlan) target(v reflect.Value) reflect.Value {
	if !b.pointer {
		return v
	}
	v.Set(reflect.New(v.Type().Elem()))
	return v.Elem()
}

func (d *decoder) blocks(b *blockPlan, raw json.RawMessage, v reflect.Value, path []string) {
	if unset(raw) {
		return
	}
	var items []json.RawMessage
	if err := json.Unmarshal(raw, &items); err != nil {
		d.report(path, fmt.Sprintf("the block %q is wrong", b.name), "a list of objects is wanted")
		return
	}
	list := reflect.MakeSlice(v.Type(), len(items), len(items))
	for i, item := range items {
		d.body(b.body, item, b.target(list.Index(i)), append(slices.Clip(path), strconv.Itoa(i)))
	}
	v.Set(list)
}
