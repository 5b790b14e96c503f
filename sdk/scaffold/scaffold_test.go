package scaffold

import (
	"go/ast"
	"go/parser"
	"go/token"
	"math/bits"
	"path"
	"strconv"
	"testing"
)

// TestImports renders sets of kinds and wants each Go file to import what it uses, and no more. That they build and
// work is proved in cmd/mta.
func TestImports(t *testing.T) {
	kinds := Kinds()
	for set := range 1 << len(kinds) {
		p := Plan{Name: "x", Lang: "go", Version: "v1.0.0"}
		for i, k := range kinds {
			if set&(1<<i) != 0 {
				p.Kinds = append(p.Kinds, k)
			}
		}
		if n := bits.OnesCount(uint(set)); n == 0 || n > 2 && n < len(kinds)-1 || p.check() != nil {
			continue // a directory without a store; what one kind imports hangs on no more than another one
		}
		files, err := p.render()
		if err != nil {
			t.Fatal(p.Kinds, err)
		}
		for _, name := range []string{"main.go", "main_test.go"} {
			for _, wrong := range wrongImports(t, name, files[name]) {
				t.Errorf("%v: %s: %s", p.Kinds, name, wrong)
			}
		}
	}
}

func wrongImports(t *testing.T, name string, src []byte) (wrong []string) {
	f, err := parser.ParseFile(token.NewFileSet(), name, src, 0)
	if err != nil {
		t.Fatal(err)
	}
	used := make(map[string]bool)
	ast.Inspect(f, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if id, ok := s.X.(*ast.Ident); ok && id.Obj == nil { //nolint:staticcheck // resolves all that is needed here
				used[id.Name] = true
			}
		}
		return true
	})
	for _, i := range f.Imports {
		name, _ := strconv.Unquote(i.Path.Value)
		if !used[path.Base(name)] {
			wrong = append(wrong, name+" is not used")
		}
		delete(used, path.Base(name))
	}
	for name := range used {
		wrong = append(wrong, name+" is not imported")
	}
	return wrong
}

func TestType(t *testing.T) {
	for name, want := range map[string]string{"greylist": "Greylist", "all-kinds_2": "AllKinds2", "a--b-": "AB", "config": "ConfigPlugin"} {
		if got := (Plan{Name: name}).Type(); got != want {
			t.Errorf("%s: %s; want %s", name, got, want)
		}
	}
}
