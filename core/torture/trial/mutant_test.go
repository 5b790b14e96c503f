package trial

import (
	"go/parser"
	"go/token"
	"maps"
	"strings"
	"testing"
)

// TestMutantsFindTheirPlace fails when the source has moved away from under a mutant. That each is caught,
// `go run ./core/torture mutants` shows.
func TestMutantsFindTheirPlace(t *testing.T) {
	module, err := Module(".")
	if err != nil {
		t.Fatal(err)
	}
	files, err := Mutate(module, Mutants)
	if err != nil {
		t.Fatal(err)
	}
	library, err := withWall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(files, library)
	for name, text := range files {
		if _, err := parser.ParseFile(token.NewFileSet(), name, text, parser.AllErrors); err != nil {
			t.Error(err)
		}
	}
}

func TestMutantWithoutItsAnchorIsNamed(t *testing.T) {
	module, err := Module(".")
	if err != nil {
		t.Fatal(err)
	}
	for anchor, want := range map[string]string{"no such text anywhere": "found 0 times", "return": "times in core/queue/write.go"} {
		_, err := Mutate(module, []Mutant{{Name: "astray", Edits: []Edit{{File: "core/queue/write.go", Anchor: anchor}}}})
		if err == nil || !strings.Contains(err.Error(), `"astray"`) || !strings.Contains(err.Error(), want) {
			t.Errorf("anchor %q: %v", anchor, err)
		}
	}
}
