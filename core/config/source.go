package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

const (
	maxFile  = 256 << 10 // bytes of one file; tables of users belong elsewhere
	maxDepth = 64        // brackets in brackets, so that the parser's recursion is bounded
)

// source is one file.
type source struct {
	name  string // as it is shown
	dir   string // absolute; relative paths in the file start here
	bytes []byte
	lines []int // where each line begins
	body  *hclsyntax.Body
}

func newSource(name string, src []byte) *source {
	src = withoutBOM(src)
	s := &source{name: name, bytes: src, lines: []int{0}}
	if dir, err := filepath.Abs(filepath.Dir(name)); err == nil {
		s.dir = dir
	}
	for i, c := range src {
		if c == '\n' {
			s.lines = append(s.lines, i+1)
		}
	}
	return s
}

// withoutBOM drops the byte order mark that some editors write; it is no mistake of the operator.
func withoutBOM(src []byte) []byte { return bytes.TrimPrefix(src, []byte("\ufeff")) }

// lineStart returns the offset of a line that counts from 1.
func (s *source) lineStart(number int) int {
	if number < 1 || number > len(s.lines) {
		return len(s.bytes)
	}
	return s.lines[number-1]
}

// line returns a line without its end.
func (s *source) line(number int) string {
	start, end := s.lineStart(number), s.lineStart(number+1)
	return strings.TrimRight(string(s.bytes[start:end]), "\r\n")
}

// readSources reads a file, or the *.hcl files of a directory in the order of their names.
func readSources(path string) ([]*source, Diagnostics) {
	files := []string{path}
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		files, err = filesIn(path)
	}
	if err != nil {
		return nil, Diagnostics{unreadable(path, err)}
	}
	var sources []*source
	var diags Diagnostics
	for _, name := range files {
		src, err := readFile(name, maxFile)
		if err != nil {
			diags = append(diags, unreadable(name, err))
			continue
		}
		sources = append(sources, newSource(name, src))
	}
	return sources, diags
}

func filesIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if !e.IsDir() && strings.HasSuffix(e.Name(), ".hcl") && !strings.HasPrefix(e.Name(), ".") {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, errors.New("the directory holds no *.hcl file")
	}
	slices.Sort(files)
	return files, nil
}

func unreadable(name string, err error) Diagnostic {
	d := Diagnostic{File: name, Summary: "can't be read: " + reason(err)}
	if errors.Is(err, fs.ErrNotExist) {
		d.Hint = "mta setup USER@DOMAIN writes one"
	}
	return d
}

// reason returns what went wrong with a file, without its name.
func reason(err error) string {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err.Error()
	}
	return err.Error()
}

// readFile reads a regular file of at most limit bytes; it does not wait on a pipe.
func readFile(name string, limit int64) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("it has more than %d bytes", limit)
	}
	return b, nil
}

// parse reads the syntax of a file. Of the findings on one line only the first is kept: the others are its echoes.
func (d *decoder) parse(s *source) {
	body, diags := parseHCL(s.name, s.bytes)
	s.body = body
	seen := map[int]bool{}
	for _, g := range diags {
		line := 0
		if g.Subject != nil {
			line = g.Subject.Start.Line
		}
		if !seen[line] {
			seen[line] = true
			d.report(fromHCL(g))
		}
		if g.Summary == unclosed {
			return // from here on, what is inside quotes and what is outside have changed places
		}
	}
}

// parseHCL reads native HCL. It returns a body in any case.
func parseHCL(name string, src []byte) (*hclsyntax.Body, hcl.Diagnostics) {
	empty := &hclsyntax.Body{}
	if g := tooDeep(name, src); g != nil {
		return empty, hcl.Diagnostics{g}
	}
	f, diags := hclsyntax.ParseConfig(src, name, hcl.InitialPos)
	if f == nil {
		return empty, diags
	}
	body, ok := f.Body.(*hclsyntax.Body)
	if !ok {
		return empty, diags
	}
	return body, diags
}

// tooDeep finds nesting that the parser should not be given.
func tooDeep(name string, src []byte) *hcl.Diagnostic {
	tokens, _ := hclsyntax.LexConfig(src, name, hcl.InitialPos)
	depth, run := 0, 0
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
			depth++
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenTemplateSeqEnd:
			depth--
		}
		// Operators recurse too: !!!!x, a ? b : c ? d : ..., and templates in templates.
		switch t.Type {
		case hclsyntax.TokenNewline:
			run = 0
		case hclsyntax.TokenBang, hclsyntax.TokenMinus, hclsyntax.TokenQuestion, hclsyntax.TokenOQuote:
			run++
		}
		if depth > maxDepth || run > 16*maxDepth {
			return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "this is nested too deeply", Subject: t.Range.Ptr()}
		}
	}
	return nil
}

// unclosed is how the parser calls a string that does not end on its line.
const unclosed = "Invalid multi-line string"

// fromHCL puts a finding of the parser or the evaluator into our words and form.
func fromHCL(g *hcl.Diagnostic) Diagnostic {
	out := Diagnostic{Summary: lowerFirst(strings.TrimSuffix(g.Summary, ".")), Detail: g.Detail}
	switch g.Summary {
	case unclosed:
		out = Diagnostic{Summary: "this string does not end on its line"}
	case "Attribute redefined":
		out = Diagnostic{Summary: "this key is set twice", Detail: g.Detail}
	case "Call to unknown function", "Not enough function arguments", "Too many function arguments", "Invalid operand":
		out = Diagnostic{Summary: lowerFirst(strings.TrimSuffix(g.Detail, "."))}
	}
	if g.Subject != nil {
		out.at(*g.Subject)
	}
	if extra, ok := hcl.DiagnosticExtra[hclsyntax.FunctionCallDiagExtra](g); ok && extra.FunctionCallError() != nil {
		out.Summary, out.Detail = extra.FunctionCallError().Error(), ""
	}
	return out
}

func lowerFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}

// at places a finding.
func (d *Diagnostic) at(r hcl.Range) {
	d.File, d.Line, d.Col, d.EndCol, d.pos = r.Filename, r.Start.Line, r.Start.Column, r.End.Column, r
	if r.End.Line != r.Start.Line {
		d.EndCol = r.Start.Column + 1
	}
}
