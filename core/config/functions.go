package config

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

const maxSecretFile = 64 << 10

// functions are those of every key but when. What env, file and credential return is marked, and a mark stays on all that
// is made of it.
func (d *decoder) functions() map[string]function.Function {
	return map[string]function.Function{
		"env":        d.secretFunction("name", d.env),
		"file":       d.secretFunction("path", func(p string) (string, error) { return readSecret(absolute(d.dir, p), p) }),
		"credential": d.secretFunction("name", d.credential),
		"join":       joinFunction(),
	}
}

func (d *decoder) env(name string) (string, error) {
	v, ok := d.options.lookupEnv(name)
	if !ok {
		return "", fmt.Errorf("%s is not set", name)
	}
	return v, nil
}

// conceal notes the strings in a secret value, so that no finding quotes them.
func (d *decoder) conceal(v cty.Value) {
	switch {
	case v.IsNull() || !v.IsKnown():
	case v.Type() == cty.String:
		d.hidden = append(d.hidden, v.AsString())
	case v.CanIterateElements():
		for it := v.ElementIterator(); it.Next(); {
			_, x := it.Element()
			d.conceal(x)
		}
	}
}

// credential reads what systemd's LoadCredential= put into place (systemd.exec(5), CREDENTIALS).
func (d *decoder) credential(name string) (string, error) {
	if name == "" || strings.ContainsAny(name, "/\x00") || name == "." || name == ".." {
		return "", fmt.Errorf("%q is not the name of a credential", name)
	}
	dir, ok := d.options.lookupEnv("CREDENTIALS_DIRECTORY")
	if !ok {
		return "", fmt.Errorf("there is no credential %q: CREDENTIALS_DIRECTORY is not set; systemd sets it for LoadCredential=", name)
	}
	return readSecret(filepath.Join(dir, name), "credential "+name)
}

// readSecret reads a file without the line end that editors leave behind.
func readSecret(path, shown string) (string, error) {
	b, err := readFile(path, maxSecretFile)
	if err != nil {
		return "", fmt.Errorf("%s can't be read: %s", shown, reason(err))
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// secretFunction makes a function of one string whose result is secret. Offline, where it fails, its value is not known.
func (d *decoder) secretFunction(param string, get func(string) (string, error)) function.Function {
	unknown := cty.UnknownVal(cty.String).Mark(sensitive{})
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: param, Type: cty.String, AllowMarked: true}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			arg, marks := args[0].Unmark()
			if d.options.Offline {
				return unknown, nil
			}
			v, err := get(arg.AsString())
			if err != nil && len(marks) > 0 {
				return unknown, function.NewArgErrorf(0, "what this names can't be read")
			}
			if err != nil {
				return unknown, function.NewArgError(0, err)
			}
			d.hidden = append(d.hidden, v)
			return cty.StringVal(v).Mark(sensitive{}), nil
		},
	})
}

// joinFunction is join(", ", ["a", "b"]).
func joinFunction() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "between", Type: cty.String}, {Name: "list", Type: cty.List(cty.String)}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			words := make([]string, 0, args[1].LengthInt())
			for it := args[1].ElementIterator(); it.Next(); {
				_, w := it.Element()
				if w.IsNull() {
					return cty.NilVal, function.NewArgErrorf(1, "join wants strings")
				}
				words = append(words, w.AsString())
			}
			return cty.StringVal(strings.Join(words, args[0].AsString())), nil
		},
	})
}
