package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/pabal-mta/mta/sdk/schema"
)

// key decodes one attribute into its field.
func (d *decoder) key(b *body, f *field, attr *hclsyntax.Attribute) {
	p := place{def: attr.NameRange, value: attr.Expr.Range()}
	if f.typ == reflect.TypeFor[schema.Secret]() {
		d.hide(attr.Expr)
		p.secret = true
	}
	if f.typ == reflect.TypeFor[*Condition]() {
		d.condition(b, f, attr)
		d.cfg.places[key{b.block(), f.name}] = p
		return
	}
	before := len(d.diags)
	defer func() {
		p.wrong = len(d.diags) > before
		d.cfg.places[key{b.block(), f.name}] = p
	}()
	v, ok := d.eval(attr.Expr)
	p.secret = p.secret || v.secret
	if t, isTuple := attr.Expr.(*hclsyntax.TupleConsExpr); isTuple {
		for _, e := range t.Exprs {
			p.items = append(p.items, e.Range())
		}
	}
	if !ok {
		return
	}
	if p.secret {
		d.conceal(v.cty)
	}
	w := writer{d: d, b: b, f: f, secret: p.secret, at: p.value}
	if f.list {
		w.list(v.cty, p.items, b.target.Field(f.index))
	} else {
		w.one(v.cty, b.target.Field(f.index))
	}
}

// hide keeps an expression that holds a literal out of excerpts.
func (d *decoder) hide(expr hclsyntax.Expression) {
	literal := false
	_ = hclsyntax.VisitAll(expr, func(n hclsyntax.Node) hcl.Diagnostics {
		if _, ok := n.(*hclsyntax.LiteralValueExpr); ok {
			literal = true
		}
		return nil
	})
	if _, call := expr.(*hclsyntax.FunctionCallExpr); literal && !call {
		d.secrets = append(d.secrets, expr.Range())
	}
}

// condition compiles a when. The label of an on block is the stage; elsewhere all is known.
func (d *decoder) condition(b *body, f *field, attr *hclsyntax.Attribute) {
	stage := b.label
	if b.kind != "on" {
		stage = "message"
	}
	c, diags := compile(attr.Expr, stage, d.byName[attr.SrcRange.Filename].bytes)
	for _, g := range diags {
		d.report(g)
	}
	if c != nil {
		b.target.Field(f.index).Set(reflect.ValueOf(c))
	}
}

// writer puts the value of one key into its field.
type writer struct {
	d      *decoder
	b      *body
	f      *field
	secret bool
	at     hcl.Range
}

// path names the key in a message: listener.auth.
func (w writer) path() string {
	if w.b.kind == "" {
		return w.f.name
	}
	return w.b.kind + "." + w.f.name
}

func (w writer) list(v cty.Value, items []hcl.Range, dst reflect.Value) {
	t := v.Type()
	if w.f.one && t == cty.String {
		item := reflect.New(w.f.typ).Elem()
		w.one(v, item)
		dst.Set(reflect.Append(dst, item))
		return
	}
	if v.IsNull() || !t.IsTupleType() && !t.IsListType() {
		hint := ""
		if t == cty.String || t.Equals(refType) {
			hint = fmt.Sprintf("a list of one is written %s = [ … ]", w.f.name)
		}
		w.d.hintAt(w.at, hint, "%s wants a %s, not %s", w.path(), w.f.describe(), formName(t))
		return
	}
	out := reflect.MakeSlice(dst.Type(), 0, v.LengthInt())
	for it := v.ElementIterator(); it.Next(); {
		i, x := it.Element()
		n, _ := i.AsBigFloat().Int64()
		if int(n) < len(items) {
			w.at = items[n]
		}
		item := reflect.New(w.f.typ).Elem()
		w.one(x, item)
		out = reflect.Append(out, item)
	}
	dst.Set(out)
	if w.f.required && out.Len() == 0 {
		w.d.errorAt(w.at, "%s is empty", w.path())
	}
}

func (w writer) one(v cty.Value, dst reflect.Value) {
	if w.f.ref != "" {
		w.reference(v, dst)
		return
	}
	s := scalarOf(w.f)
	if v.IsNull() || v.Type() != s.form {
		w.d.errorAt(w.at, "%s wants %s, not %s", w.path(), w.wanted(s), formName(v.Type()))
		return
	}
	text := textOf(v)
	if w.f.oneof != nil && !slices.Contains(w.f.oneof, text) {
		w.d.errorAt(w.at, "%s is not one of %s%s", w.quote(text), quoteAll(w.f.oneof, ", "), w.meant(text))
		return
	}
	x, err := s.parse(text, w.d.dir)
	if err != nil && w.secret {
		w.d.errorAt(w.at, "the secret value of %s is not %s", w.path(), w.wanted(s))
		return
	}
	if err != nil {
		w.d.errorAt(w.at, "%s", strings.TrimPrefix(err.Error(), "mail: "))
		return
	}
	if w.within(s, x) {
		dst.Set(reflect.ValueOf(x).Convert(w.f.typ))
	}
}

// wanted names what a key takes, with its article where it is a noun.
func (w writer) wanted(s scalar) string {
	if len(w.f.oneof) > 0 {
		return "one of " + quoteAll(w.f.oneof, ", ")
	}
	if strings.HasPrefix(s.name, `"`) || s.form == cty.Bool {
		return s.name
	}
	return article(s.name)
}

func (w writer) quote(text string) string {
	if w.secret {
		return "the secret value of " + w.path()
	}
	return short(text)
}

func (w writer) meant(text string) string {
	if w.secret {
		return ""
	}
	return meant(text, w.f.oneof)
}

// within compares a value with the bounds of its key.
func (w writer) within(s scalar, x any) bool {
	n, ok := number(x)
	if !ok {
		return true
	}
	for _, bound := range []struct {
		text, word string
		bad        func(a, b float64) bool
	}{
		{w.f.min, "at least", func(a, b float64) bool { return a < b }},
		{w.f.max, "at most", func(a, b float64) bool { return a > b }},
	} {
		if bound.text == "" {
			continue
		}
		limit, err := s.parse(bound.text, w.d.dir)
		if err != nil {
			panic(fmt.Sprintf("bound of %s: %v", w.f.name, err))
		}
		if l, _ := number(limit); bound.bad(n, l) {
			w.d.errorAt(w.at, "%s is %s %s", w.path(), bound.word, literal(reflect.ValueOf(limit)))
			return false
		}
	}
	return true
}

// reference puts the name of the block that is referred to into the field.
func (w writer) reference(v cty.Value, dst reflect.Value) {
	if v.Type() == cty.String && !w.secret {
		hint := ""
		if _, ok := w.d.labels[w.f.ref][v.AsString()]; ok {
			hint = fmt.Sprintf("write %s.%s, without quotes", w.f.ref, v.AsString())
		}
		w.d.hintAt(w.at, hint, "%s wants a reference such as %s.NAME, not a string", w.path(), w.f.ref)
		return
	}
	if v.IsNull() || !v.Type().Equals(refType) {
		w.d.errorAt(w.at, "%s wants a reference such as %s.NAME, not %s", w.path(), w.f.ref, formName(v.Type()))
		return
	}
	r, ok := v.EncapsulatedValue().(*ref)
	if !ok || r.kind != w.f.ref {
		w.d.errorAt(w.at, "%s wants a reference such as %s.NAME, not %s.%s", w.path(), w.f.ref, r.kind, r.name)
		return
	}
	dst.SetString(r.name)
	if w.f.wants != "" {
		stage := ""
		if w.f.wants == "filter" {
			stage = w.b.label
		}
		w.d.uses = append(w.d.uses, use{plugin: r.name, path: w.path(), wants: w.f.wants, stage: stage, at: w.at})
	}
}
