package config

import (
	"cmp"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/hashicorp/hcl/v2"
)

// Severity says whether the configuration can be used.
type Severity uint8

// The severities. The zero value is an error.
const (
	Error   Severity = iota // it can't be used
	Warning                 // it can, but it is hardly what was meant
)

// Diagnostic is one finding for the operator. Line and Col count from 1, Col in characters; both are 0 for a finding that
// has no place in a file.
type Diagnostic struct {
	Severity  Severity
	File      string
	Line, Col int
	EndCol    int    // on the same line, one past the last character
	Summary   string // one line, without full stop
	Detail    string // more of it; may be ""
	Hint      string // what mends it, such as a command; may be ""
	Excerpt   string // the line, and below it the place marked; may be ""

	pos hcl.Range
}

// Place returns file:line:col, as editors read it.
func (d Diagnostic) Place() string {
	if d.Line == 0 {
		return d.File
	}
	return fmt.Sprintf("%s:%d:%d", d.File, d.Line, d.Col)
}

// Error returns the finding on one line.
func (d Diagnostic) Error() string {
	word := ""
	if d.Severity == Warning {
		word = "warning: "
	}
	if d.File == "" {
		return word + d.Summary
	}
	return d.Place() + ": " + word + d.Summary
}

// Diagnostics is all findings, in the order of files, lines and columns.
type Diagnostics []Diagnostic

// HasErrors reports whether one of them is an error.
func (ds Diagnostics) HasErrors() bool {
	return slices.ContainsFunc(ds, func(d Diagnostic) bool { return d.Severity == Error })
}

// Error returns one line for each finding.
func (ds Diagnostics) Error() string {
	lines := make([]string, len(ds))
	for i, d := range ds {
		lines[i] = d.Error()
	}
	return strings.Join(lines, "\n")
}

// Print writes every finding with its excerpt, detail and hint, in colour if asked.
func (ds Diagnostics) Print(w io.Writer, color bool) error {
	var b strings.Builder
	for _, d := range ds {
		d.print(&b, color)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

const indent = "       "

func (d Diagnostic) print(b *strings.Builder, color bool) {
	mark, bold, plain := "", "", ""
	if color {
		bold, plain, mark = "\x1b[1m", "\x1b[0m", "\x1b[31m"
		if d.Severity == Warning {
			mark = "\x1b[33m"
		}
	}
	fmt.Fprintf(b, "%s%s%s\n", bold, d.Error(), plain)
	if source, carets, ok := strings.Cut(d.Excerpt, "\n"); ok {
		fmt.Fprintf(b, "%s\n%s%s%s\n", source, mark, carets, plain)
	} else if source != "" {
		fmt.Fprintln(b, source)
	}
	for _, text := range []string{d.Detail, d.Hint} {
		for line := range strings.SplitSeq(text, "\n") {
			if line != "" {
				fmt.Fprintf(b, "%s%s\n", indent, line)
			}
		}
	}
}

// arrange sorts the findings by place, and drops what is told twice.
func (ds *Diagnostics) arrange(sources []*source) {
	order := map[string]int{}
	for i, s := range sources {
		order[s.name] = i
	}
	slices.SortStableFunc(*ds, func(a, b Diagnostic) int {
		return cmp.Or(cmp.Compare(order[a.File], order[b.File]), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col),
			cmp.Compare(a.Severity, b.Severity))
	})
	*ds = slices.CompactFunc(*ds, func(a, b Diagnostic) bool {
		return a.File == b.File && a.Line == b.Line && a.Col == b.Col && a.Summary == b.Summary
	})
}

// finish brings the findings into order and fills in the lines. It comes last, when every secret in the files is known.
func (d *decoder) finish() {
	d.diags.arrange(d.sources)
	for i := range d.diags {
		g := &d.diags[i]
		g.Summary, g.Detail, g.Hint = d.redact(g.Summary), d.redact(g.Detail), d.redact(g.Hint)
		if s := d.byName[g.File]; s != nil && g.Line > 0 {
			g.Excerpt = s.excerpt(g.pos, d.secrets)
		}
	}
}

// redact takes the secrets out of words that others wrote, such as a plugin that says what is wrong with its configuration.
// Shorter ones than four bytes would be found in every word.
func (d *decoder) redact(text string) string {
	for _, secret := range d.hidden {
		if len(secret) >= 4 {
			text = strings.ReplaceAll(text, secret, "(secret)")
		}
	}
	return text
}

const (
	gutter      = "%6d | "
	emptyGutter = "       | "
	maxExcerpt  = 160  // characters of a line that are shown
	maxLine     = 4096 // bytes of a line of which anything is shown
)

// secretKey finds lines that likely hold a password, where the file could not be read far enough to know.
var secretKey = regexp.MustCompile(`(?i)\w*(passw|secret|token|passphrase)\w*\s*=`)

// excerpt returns the line of a range and a second one that marks the place. A literal secret on the line, and all after
// it, is left out.
func (s *source) excerpt(r hcl.Range, secrets []hcl.Range) string {
	line := s.line(r.Start.Line)
	if len(line) > maxLine {
		return ""
	}
	cut := s.secretAt(r.Start.Line, line, secrets)
	suffix := ""
	if cut < len(line) {
		line, suffix = strings.TrimRight(line[:cut], " \t")+" ", "(secret)"
	}
	start := r.Start.Byte - s.lineStart(r.Start.Line)
	if start > len(line) && suffix != "" {
		return fmt.Sprintf(gutter, r.Start.Line) + clean(line) + suffix
	}
	start = min(start, len(line))
	end := len(line)
	if r.End.Line == r.Start.Line {
		end = min(r.End.Byte-s.lineStart(r.Start.Line), len(line))
	}
	start = max(start, 0)
	end = max(end, start)
	head, marked := clean(line[:start]), clean(line[start:end])
	text := clean(line) + suffix
	if len([]rune(text)) > maxExcerpt {
		text = string([]rune(text)[:maxExcerpt]) + "…"
	}
	out := fmt.Sprintf(gutter, r.Start.Line) + text
	if len([]rune(head)) >= maxExcerpt {
		return out
	}
	width := min(max(1, cells(marked)), maxExcerpt)
	return out + "\n" + emptyGutter + blank(head) + strings.Repeat("^", width)
}

// secretAt returns where on a line the first secret begins, or the line's length.
func (s *source) secretAt(number int, line string, secrets []hcl.Range) int {
	cut := len(line)
	for _, r := range secrets {
		if r.Filename != s.name || number < r.Start.Line || number > r.End.Line {
			continue
		}
		at := 0
		if number == r.Start.Line {
			at = r.Start.Byte - s.lineStart(number)
		}
		cut = min(cut, max(at, 0))
	}
	if at := secretKey.FindStringIndex(line); at != nil && literalFollows(line[at[1]:]) {
		cut = min(cut, at[1])
	}
	return cut
}

func literalFollows(rest string) bool {
	rest = strings.TrimSpace(rest)
	return strings.HasPrefix(rest, `"`) || strings.HasPrefix(rest, "<<")
}

// clean makes a line safe for a terminal: tabs stay, other controls do not.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || r != '\t' && unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return '?'
		}
		return r
	}, s)
}

// blank returns white space as wide as s, its tabs kept.
func blank(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r == '\t' {
			b.WriteByte('\t')
			continue
		}
		b.WriteString(strings.Repeat(" ", runeCells(r)))
	}
	return b.String()
}

func cells(s string) int {
	n := 0
	for _, r := range s {
		n += runeCells(r)
	}
	return n
}

// runeCells returns how wide a character is on a terminal: East Asian wide ones take two cells (UAX #11, roughly).
func runeCells(r rune) int {
	switch {
	case unicode.Is(unicode.Mn, r):
		return 0
	case unicode.In(r, unicode.Hangul, unicode.Han, unicode.Hiragana, unicode.Katakana), r >= 0xff01 && r <= 0xff60, r >= 0x1f300 && r <= 0x1faff:
		return 2
	default:
		return 1
	}
}
