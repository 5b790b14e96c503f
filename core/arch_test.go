// Package core_test holds the drawing against the code: the import table of README.md is read, and every room that
// imports more than its row allows fails the test.
package core_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/pabal-mta/mta/"

// allowed reads the import table: room → what it may import.
func allowed(t *testing.T) map[string][]string {
	t.Helper()
	f, err := os.Open("README.md")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table := map[string][]string{}
	inside := false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if title, ok := strings.CutPrefix(lines.Text(), "## "); ok {
			inside = title == "Import table"
		}
		if !inside {
			continue
		}
		cells := strings.Split(lines.Text(), "|")
		if len(cells) != 5 || strings.HasPrefix(cells[1], "---") || strings.TrimSpace(cells[1]) == "room" {
			continue
		}
		var may []string
		for name := range strings.SplitSeq(cells[3], ",") {
			if name = strings.TrimSpace(name); name != "–" {
				may = append(may, name)
			}
		}
		table[strings.TrimSpace(cells[1])] = may
	}
	if len(table) < 10 {
		t.Fatalf("the import table has only %d rows; was its form changed?", len(table))
	}
	return table
}

type pkg struct {
	ImportPath string
	Imports    []string
	Standard   bool
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "../sdk/...", "../core/...", "../plugins/...", "../cmd/...", "../examples/...")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var list []pkg
	for dec := json.NewDecoder(out); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	return list
}

// permits tells whether a row lets a room import path. An entry stands for the package of ours with that name, or for
// an outside module whose path holds it.
func permits(row []string, path string) bool {
	ours, isOurs := strings.CutPrefix(path, module)
	for _, entry := range row {
		if isOurs && entry == ours {
			return true
		}
		outside := strings.Replace(entry, "x/", "golang.org/x/", 1)
		if !isOurs && strings.Contains(path+"/", outside+"/") {
			return true
		}
		if !isOurs && strings.HasPrefix(path, "github.com/"+entry+"/") {
			return true
		}
	}
	return false
}

func isStandard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

func TestImportTable(t *testing.T) {
	table := allowed(t)
	seen := map[string]bool{}
	for _, p := range packages(t) {
		room, ok := strings.CutPrefix(p.ImportPath, module)
		if !ok {
			t.Fatalf("package %s is not of this module", p.ImportPath)
		}
		if strings.HasPrefix(room, "cmd/") || strings.HasPrefix(room, "examples/") || room == "core" {
			continue // TestExamplesUseTheSDKAlone and TestEngineIsTheTop look at these
		}
		row, ok := table[rowOf(table, room)]
		if !ok {
			t.Errorf("%s is not in the import table of core/README.md", room)
			continue
		}
		seen[rowOf(table, room)] = true
		for _, path := range p.Imports {
			if !isStandard(path) && !permits(row, path) && !strings.HasPrefix(path, p.ImportPath) {
				t.Errorf("%s imports %s; its row in core/README.md does not allow that", room, path)
			}
		}
	}
	for room := range table {
		if !seen[room] {
			t.Errorf("the import table has a row for %s, and there is no such package", room)
		}
	}
}

// rowOf finds the row of a room: its own, or that of the room that it is an internal part of.
func rowOf(table map[string][]string, room string) string {
	if _, ok := table[room]; ok {
		return room
	}
	owner, _, ok := strings.Cut(room, "/internal")
	if ok {
		return owner
	}
	return room
}

func TestEngineIsTheTop(t *testing.T) {
	for _, p := range packages(t) {
		room := strings.TrimPrefix(p.ImportPath, module)
		for _, path := range p.Imports {
			if path == module+"core/engine" && room != "cmd/mta" {
				t.Errorf("%s imports core/engine; only cmd/mta may", room)
			}
			if strings.HasPrefix(room, "sdk") && strings.HasPrefix(path, module+"core") {
				t.Errorf("%s imports %s; the sdk never imports the core", room, path)
			}
			if strings.HasPrefix(room, "plugins") && strings.HasPrefix(path, module+"core") {
				t.Errorf("%s imports %s; a plugin never imports the core", room, path)
			}
		}
	}
}

func TestExamplesUseTheSDKAlone(t *testing.T) {
	for _, p := range packages(t) {
		room := strings.TrimPrefix(p.ImportPath, module)
		if !strings.HasPrefix(room, "examples/") {
			continue
		}
		for _, path := range p.Imports {
			if strings.HasPrefix(path, module) && !strings.HasPrefix(path, module+"sdk") && !strings.HasPrefix(path, p.ImportPath) {
				t.Errorf("%s imports %s; an example is written as a stranger would, with the sdk alone", room, path)
			}
		}
	}
}
