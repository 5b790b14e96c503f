package config

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/pabal-mta/mta/sdk/mail"
)

// Facts is what a condition can ask about. Only what the stage knows has to be set.
type Facts struct {
	Authenticated bool
	User          string
	RemoteIP      netip.Addr
	Helo          string
	TLS           bool
	Listener      string
	Sender        mail.Address      // from stage mail on
	Recipient     mail.Address      // at stage rcpt
	Size          int64             // at stage message, in bytes
	Recipients    int               // at stage message
	Meta          map[string]string // what the steps before have set
}

// fact is one variable of a condition.
type fact struct {
	name   string // "session.user"
	stages string // where it is known, by the first letter of each stage
	sample cty.Value
	get    func(*Facts) cty.Value
	doc    string
}

// The stages of a dialogue: connect, helo, mail, rcpt and message, as the letters of fact.stages. Two begin with m, so
// message is D, for DATA.
var stageLetters = map[string]string{"connect": "c", "helo": "h", "mail": "m", "rcpt": "r", "message": "D"}

// facts are the variables of a condition. The samples are what it is tried with when it is loaded.
func facts() []fact {
	text := func(get func(*Facts) string) func(*Facts) cty.Value {
		return func(f *Facts) cty.Value { return cty.StringVal(get(f)) }
	}
	return []fact{
		{"session.authenticated", "chmrD", cty.True, func(f *Facts) cty.Value { return cty.BoolVal(f.Authenticated) }, "the client has logged in"},
		{"session.user", "chmrD", cty.StringVal("ann@example.com"), text(func(f *Facts) string { return f.User }), "the account that logged in; \"\" for none"},
		{"session.remote_ip", "chmrD", cty.StringVal("192.0.2.1"), text(remoteIP), "the client's address"},
		{"session.helo", "hmrD", cty.StringVal("mail.example.com"), text(func(f *Facts) string { return f.Helo }), "what the client calls itself"},
		{"session.tls", "chmrD", cty.True, func(f *Facts) cty.Value { return cty.BoolVal(f.TLS) }, "the connection is encrypted"},
		{"session.listener", "chmrD", cty.StringVal("mx"), text(func(f *Facts) string { return f.Listener }), "the name of the listener"},
		{"sender.address", "mrD", cty.StringVal("ann@example.com"), text(func(f *Facts) string { return f.Sender.String() }), "the reverse-path; \"\" is the null sender"},
		{"sender.local", "mrD", cty.StringVal("ann"), text(func(f *Facts) string { return f.Sender.Local() }), "its part before the @"},
		{"sender.domain", "mrD", cty.StringVal("example.com"), text(func(f *Facts) string { return f.Sender.Domain() }), "its part after the @, in lower case"},
		{"rcpt.address", "r", cty.StringVal("bob@example.net"), text(func(f *Facts) string { return f.Recipient.String() }), "the forward-path"},
		{"rcpt.local", "r", cty.StringVal("bob"), text(func(f *Facts) string { return f.Recipient.Local() }), "its part before the @"},
		{"rcpt.domain", "r", cty.StringVal("example.net"), text(func(f *Facts) string { return f.Recipient.Domain() }), "its part after the @, in lower case"},
		{"message.size", "D", cty.NumberIntVal(4096), func(f *Facts) cty.Value { return cty.NumberIntVal(f.Size) }, "in bytes"},
		{"message.recipients", "D", cty.NumberIntVal(1), func(f *Facts) cty.Value { return cty.NumberIntVal(int64(f.Recipients)) }, "how many recipients it has"},
	}
}

func remoteIP(f *Facts) string {
	if !f.RemoteIP.IsValid() {
		return ""
	}
	return f.RemoteIP.Unmap().String()
}

// constants can be used in a condition: 8 * MiB.
var constants = map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}

// maxCondition bounds a condition, in bytes: it is evaluated for each message, and each part of it when it is loaded.
const maxCondition = 2048

// Condition is a when. It may be evaluated by many goroutines at once.
type Condition struct {
	source    string
	expr      hclsyntax.Expression
	used      map[string][]fact // by object: only what the expression names
	constants map[string]cty.Value
	functions map[string]function.Function
	meta      bool // the expression asks for what other steps have set
}

// String returns the condition as it is written.
func (c *Condition) String() string { return c.source }

// Eval reports whether the condition holds. An error, such as a text that is no IP address, is one of the values, since all else was
// checked when the file was loaded; the on_error of the step applies.
func (c *Condition) Eval(f Facts) (bool, error) {
	v, err := c.value(c.expr, c.scope(func(x fact) cty.Value { return x.get(&f) }, f.Meta))
	if err != nil {
		return false, fmt.Errorf("when = %s: %w", c.source, err)
	}
	return v.True(), nil
}

// value evaluates the condition, or a part of it, to a bool.
func (c *Condition) value(expr hclsyntax.Expression, scope *hcl.EvalContext) (cty.Value, error) {
	v, diags := expr.Value(scope)
	if diags.HasErrors() {
		return cty.False, fromHCL(diags[0])
	}
	if v.IsNull() || !v.IsKnown() || v.Type() != cty.Bool {
		return cty.False, fmt.Errorf("it is not true or false")
	}
	return v, nil
}

// scope makes only the variables that the expression names.
func (c *Condition) scope(get func(fact) cty.Value, meta map[string]string) *hcl.EvalContext {
	vars := make(map[string]cty.Value, len(c.used)+len(c.constants))
	for object, attrs := range c.used {
		fields := make(map[string]cty.Value, len(attrs))
		for _, a := range attrs {
			fields[a.name[len(object)+1:]] = get(a)
		}
		vars[object] = cty.ObjectVal(fields)
	}
	for name, v := range c.constants {
		vars[name] = v
	}
	functions := c.functions
	if c.meta {
		functions = maps.Clone(functions)
		functions[metaName] = metaFunction(meta)
	}
	return &hcl.EvalContext{Variables: vars, Functions: functions}
}

// compile checks a condition for a stage: the names in it, and then, with sample values, each operand by itself. hcl drops
// what it finds on one side of && and || when the other side decides, so the whole alone would not do.
func compile(expr hclsyntax.Expression, stage string, src []byte) (*Condition, Diagnostics) {
	var diags Diagnostics
	report := func(g Diagnostic) { diags = append(diags, g) }
	c := &Condition{expr: expr, used: map[string][]fact{}, constants: map[string]cty.Value{}, functions: whenFunctions()}
	c.source = strings.Join(strings.Fields(string(expr.Range().SliceBytes(src))), " ")
	if expr.Range().End.Byte-expr.Range().Start.Byte > maxCondition {
		report(*factError(expr.Range(), "this condition is too long"))
		return nil, diags
	}
	checkShape(expr, true, report)
	for _, t := range expr.Variables() {
		if g := c.use(t, stage); g != nil {
			report(*g)
		}
	}
	if len(diags) > 0 {
		return nil, diags
	}
	sample := c.scope(func(f fact) cty.Value { return f.sample }, nil)
	_ = hclsyntax.VisitAll(expr, func(n hclsyntax.Node) hcl.Diagnostics {
		if call, ok := n.(*hclsyntax.FunctionCallExpr); ok && call.Name == metaName {
			c.meta = true
		}
		for _, part := range operands(n) {
			diags = append(diags, tried(part, sample)...)
		}
		return nil
	})
	diags = append(diags, c.tryWhole(sample)...)
	if len(diags) > 0 {
		return nil, diags
	}
	return c, nil
}

// operands returns the parts of a node that are tried by themselves.
func operands(n hclsyntax.Node) []hclsyntax.Expression {
	switch n := n.(type) {
	case *hclsyntax.BinaryOpExpr:
		return []hclsyntax.Expression{n.LHS, n.RHS}
	case *hclsyntax.ConditionalExpr:
		return []hclsyntax.Expression{n.Condition, n.TrueResult, n.FalseResult}
	default:
		return nil
	}
}

func tried(expr hclsyntax.Expression, scope *hcl.EvalContext) (out Diagnostics) {
	_, diags := expr.Value(scope)
	for _, g := range diags {
		out = append(out, fromHCL(g))
	}
	return out
}

// tryWhole checks that the condition is true or false.
func (c *Condition) tryWhole(scope *hcl.EvalContext) Diagnostics {
	if diags := tried(c.expr, scope); len(diags) > 0 {
		return diags
	}
	v, _ := c.expr.Value(scope)
	if v.Type() == cty.Bool && !v.IsNull() {
		return nil
	}
	g := Diagnostic{Summary: "when wants true or false, not " + formName(v.Type())}
	g.at(c.expr.Range())
	return Diagnostics{g}
}

// use notes a variable, or tells why there is none.
func (c *Condition) use(t hcl.Traversal, stage string) *Diagnostic {
	root := t.RootName()
	if n, ok := constants[root]; ok && len(t) == 1 {
		c.constants[root] = cty.NumberIntVal(n)
		return nil
	}
	all := facts()
	objects, attrs := factNames(all, root)
	if len(attrs) == 0 {
		g := factError(t[0].SourceRange(), "when knows no %q%s", root, meant(root, objects))
		if suggest(root, objects) == "" {
			g.Hint = "known here: " + strings.Join(objects, ", ")
		}
		return g
	}
	if len(t) == 1 {
		return factError(t.SourceRange(), "which part of %s? it has %s", root, strings.Join(attrs, ", "))
	}
	name, at := stepName(t[1])
	i := slices.IndexFunc(all, func(f fact) bool { return f.name == root+"."+name })
	switch {
	case i < 0:
		return factError(at, "%s has no %q%s", root, name, meant(name, attrs))
	case len(t) > 2:
		return factError(t.SourceRange(), "nothing can follow %s.%s", root, name)
	case !strings.Contains(all[i].stages, stageLetters[stage]):
		return factError(t.SourceRange(), "%s is not known at stage %q; it is at %s", all[i].name, stage, stagesOf(all[i]))
	}
	if !slices.ContainsFunc(c.used[root], func(f fact) bool { return f.name == all[i].name }) {
		c.used[root] = append(c.used[root], all[i])
	}
	return nil
}

func factError(r hcl.Range, format string, args ...any) *Diagnostic {
	g := &Diagnostic{Summary: fmt.Sprintf(format, args...)}
	g.at(r)
	return g
}

// factNames returns all roots, and the attributes of one of them.
func factNames(all []fact, root string) (roots, attrs []string) {
	for name := range constants {
		roots = append(roots, name)
	}
	for _, f := range all {
		object, attr, _ := strings.Cut(f.name, ".")
		roots = append(roots, object)
		if object == root {
			attrs = append(attrs, attr)
		}
	}
	slices.Sort(roots)
	return slices.Compact(roots), attrs
}

func stagesOf(f fact) string {
	var names []string
	for _, stage := range []string{"connect", "helo", "mail", "rcpt", "message"} {
		if strings.Contains(f.stages, stageLetters[stage]) {
			names = append(names, stage)
		}
	}
	return quoteAll(names, ", ")
}

// whenFunctions are the functions of a condition.
func whenFunctions() map[string]function.Function {
	return map[string]function.Function{
		"cidr_contains": textFunction([]string{"network", "ip"}, cty.Bool, cidrContains),
		"starts_with": textFunction([]string{"text", "start"}, cty.Bool, func(a []string) (cty.Value, error) {
			return cty.BoolVal(strings.HasPrefix(a[0], a[1])), nil
		}),
		"ends_with": textFunction([]string{"text", "end"}, cty.Bool, func(a []string) (cty.Value, error) {
			return cty.BoolVal(strings.HasSuffix(a[0], a[1])), nil
		}),
		"lower": textFunction([]string{"text"}, cty.String, func(a []string) (cty.Value, error) {
			return cty.StringVal(strings.ToLower(a[0])), nil
		}),
		"contains": containsFunction(),
		metaName:   metaFunction(nil),
	}
}

// metaName is the function that reads what steps have set. It is no variable, since a name that nobody has set is no mistake.
const metaName = "meta"

// metaFunction is meta("name"): the value that an earlier step has set, or "".
func metaFunction(meta map[string]string) function.Function {
	return textFunction([]string{"name"}, cty.String, func(a []string) (cty.Value, error) {
		return cty.StringVal(meta[a[0]]), nil
	})
}

// cidrContains is false for a message that has no remote address, since the server itself made it.
func cidrContains(a []string) (cty.Value, error) {
	network, err := parsePrefix(a[0])
	if err != nil {
		return cty.False, function.NewArgErrorf(0, `cidr_contains wants a network such as "10.0.0.0/8", and then an address`)
	}
	if a[1] == "" {
		return cty.False, nil
	}
	ip, err := netip.ParseAddr(a[1])
	if err != nil {
		return cty.False, function.NewArgErrorf(1, "cidr_contains wants a network, and then an address such as session.remote_ip")
	}
	return cty.BoolVal(network.Contains(ip.Unmap().WithZone(""))), nil
}

// textFunction makes a function whose arguments are all strings.
func textFunction(params []string, result cty.Type, f func([]string) (cty.Value, error)) function.Function {
	spec := &function.Spec{Type: function.StaticReturnType(result)}
	for _, name := range params {
		spec.Params = append(spec.Params, function.Parameter{Name: name, Type: cty.String})
	}
	spec.Impl = func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		words := make([]string, len(args))
		for i, a := range args {
			words[i] = a.AsString()
		}
		return f(words)
	}
	return function.New(spec)
}

// containsFunction is contains(["a", "b"], x).
func containsFunction() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "list", Type: cty.List(cty.String)}, {Name: "text", Type: cty.String}},
		Type:   function.StaticReturnType(cty.Bool),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			for it := args[0].ElementIterator(); it.Next(); {
				if _, x := it.Element(); !x.IsNull() && x.AsString() == args[1].AsString() {
					return cty.True, nil
				}
			}
			return cty.False, nil
		},
	})
}
