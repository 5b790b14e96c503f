package config

import (
	"fmt"
	"maps"
	"math/big"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// sensitive is the mark of a value that is never printed.
type sensitive struct{}

// value is what an expression gave.
type value struct {
	cty    cty.Value // without marks
	secret bool
}

// eval evaluates the expression of a key. When it can't be, the findings are told and ok is false; it is false without a
// finding where the value is not known offline.
func (d *decoder) eval(expr hclsyntax.Expression) (v value, ok bool) {
	before := len(d.diags)
	checkShape(expr, false, d.report)
	d.checkNames(expr)
	if len(d.diags) > before {
		return value{}, false
	}
	raw, diags := expr.Value(d.scope)
	for _, g := range diags {
		d.report(fromHCL(g))
	}
	if diags.HasErrors() {
		return value{}, false
	}
	secret := raw.HasMarkDeep(sensitive{})
	raw, _ = raw.UnmarkDeep()
	return value{raw, secret}, raw.IsWhollyKnown()
}

// checkShape refuses the parts of HCL that are no part of mta.hcl: no loops, and no operators and conditionals outside of
// when. What is left always ends, and ends soon.
func checkShape(expr hclsyntax.Expression, when bool, report func(Diagnostic)) {
	refuse := func(n hclsyntax.Node, format string, args ...any) {
		g := Diagnostic{Summary: fmt.Sprintf(format, args...)}
		g.at(n.Range())
		report(g)
	}
	_ = hclsyntax.VisitAll(expr, func(n hclsyntax.Node) hcl.Diagnostics {
		switch n := n.(type) {
		case *hclsyntax.ForExpr, *hclsyntax.SplatExpr, *hclsyntax.TemplateJoinExpr:
			refuse(n, "there are no loops in mta.hcl; write the values one by one")
		case *hclsyntax.ConditionalExpr, *hclsyntax.BinaryOpExpr:
			if !when {
				refuse(n, "there are no operators and conditions here; only when has them")
			}
		case *hclsyntax.UnaryOpExpr:
			if _, literal := n.Val.(*hclsyntax.LiteralValueExpr); !when && !literal {
				refuse(n, "there are no operators and conditions here; only when has them")
			}
		case *hclsyntax.LiteralValueExpr:
			if n.Val.IsNull() {
				refuse(n, "null is no value; leave the key out")
			} else if tooLarge(n.Val) {
				refuse(n, "this number is too large")
			}
		}
		return nil
	})
}

// tooLarge finds numbers such as 1e999999999, whose digits alone would fill the memory.
func tooLarge(v cty.Value) bool {
	if v.Type() != cty.Number || !v.IsKnown() {
		return false
	}
	f := v.AsBigFloat()
	return f.IsInf() || f.Cmp(new(big.Float)) != 0 && (f.MantExp(nil) > 256 || f.MantExp(nil) < -256)
}

// checkNames reports every name that nothing has, at its column, and notes the blocks that are used.
func (d *decoder) checkNames(expr hclsyntax.Expression) {
	for _, t := range expr.Variables() {
		root, kind := t.RootName(), d.labels[t.RootName()]
		switch {
		case kind != nil:
			d.checkReference(root, kind, t)
		case root == "domains" && d.hasDomains:
		case root == "domains":
			d.errorAt(t.SourceRange(), "domains is not set at the top of the file")
		default:
			d.unknownRoot(root, t[0].SourceRange())
		}
	}
}

func (d *decoder) unknownRoot(root string, r hcl.Range) {
	g := Diagnostic{Summary: fmt.Sprintf("there is no %q here", root)}
	if near := suggest(root, append(slices.Sorted(maps.Keys(d.labels)), "domains")); near != "" {
		g.Summary += fmt.Sprintf("; did you mean %q?", near)
	} else {
		g.Hint = fmt.Sprintf("a text stands in quotes: %q", root)
		for _, kind := range slices.Sorted(maps.Keys(d.labels)) {
			if _, ok := d.labels[kind][root]; ok {
				g.Hint = fmt.Sprintf("a %s is written %s.%s", kind, kind, root)
			}
		}
	}
	g.at(r)
	d.report(g)
}

// checkReference reports plugin.NAME where there is no plugin NAME.
func (d *decoder) checkReference(kind string, labels map[string]hcl.Range, t hcl.Traversal) {
	if len(t) < 2 {
		d.errorAt(t.SourceRange(), "which %s? write %s.NAME", kind, kind)
		return
	}
	name, r := stepName(t[1])
	if _, ok := labels[name]; !ok {
		d.errorAt(r, "there is no %s %q%s", kind, name, meant(name, slices.Sorted(maps.Keys(labels))))
		return
	}
	if len(t) > 2 {
		_, r := stepName(t[2])
		d.errorAt(r, "nothing can follow %s.%s", kind, name)
		return
	}
	d.used[ref{kind, name}] = true
}

// stepName returns the name in .name or ["name"], and its place.
func stepName(step hcl.Traverser) (string, hcl.Range) {
	switch s := step.(type) {
	case hcl.TraverseAttr:
		r := s.SrcRange
		r.Start.Byte++ // behind the dot
		r.Start.Column++
		return s.Name, r
	case hcl.TraverseIndex:
		if s.Key.Type() == cty.String && s.Key.IsKnown() && !s.Key.IsNull() {
			return s.Key.AsString(), s.SrcRange
		}
		return "", s.SrcRange
	default:
		return "", step.SourceRange()
	}
}
