package useragent

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// maxHTML bounds the HTML that is rendered; what is behind it is not shown.
const maxHTML = 4 << 20

// HTMLText renders HTML as plain text: blocks become lines, links are numbered and listed at the end, pictures are named
// by their alt text, and nothing that is hidden in scripts and styles is shown.
func HTMLText(source string) string {
	t := textRenderer{}
	z := html.NewTokenizer(strings.NewReader(source[:min(len(source), maxHTML)]))
	z.SetMaxBuf(maxHTML)
	for {
		switch z.Next() {
		case html.ErrorToken:
			return t.finish()
		case html.TextToken:
			if t.hidden == 0 {
				t.text(string(z.Text()), t.pre > 0)
			}
		case html.StartTagToken, html.SelfClosingTagToken:
			t.start(z.Token())
		case html.EndTagToken:
			t.end(z.Token().DataAtom)
		}
	}
}

type textRenderer struct {
	b      strings.Builder
	line   strings.Builder // the line being written
	hidden int
	pre    int
	quote  int
	lists  []int // 0: bullets, else the next number
	links  []string
	open   []int // numbers of the links that are open; 0 for an anchor without a target
	blank  bool  // an empty line is due
	space  bool  // a space is due
}

func isHiding(a atom.Atom) bool {
	return slices.Contains([]atom.Atom{atom.Script, atom.Style, atom.Head, atom.Title, atom.Template, atom.Noscript, atom.Svg, atom.Select}, a)
}

func isParagraph(a atom.Atom) bool {
	return slices.Contains([]atom.Atom{atom.P, atom.H1, atom.H2, atom.H3, atom.H4, atom.H5, atom.H6, atom.Ul, atom.Ol, atom.Table, atom.Pre, atom.Blockquote, atom.Hr}, a)
}

func isBlock(a atom.Atom) bool {
	return isParagraph(a) || slices.Contains([]atom.Atom{atom.Div, atom.Br, atom.Tr, atom.Li, atom.Section, atom.Article, atom.Header, atom.Footer, atom.Dt, atom.Dd, atom.Body, atom.Center}, a)
}

func (t *textRenderer) start(tok html.Token) {
	a := tok.DataAtom
	if isHiding(a) {
		if tok.Type == html.StartTagToken {
			t.hidden++
		}
		return
	}
	if t.hidden > 0 && a != atom.Body {
		return
	}
	if isBlock(a) {
		t.newline(isParagraph(a) && len(t.lists) == 0)
	}
	switch a {
	case atom.Body:
		t.hidden = 0
	case atom.Blockquote:
		t.quote++
	case atom.Pre:
		t.pre++
	case atom.Ul:
		t.lists = append(t.lists, 0)
	case atom.Ol:
		t.lists = append(t.lists, 1)
	case atom.Li:
		t.bullet()
	case atom.Td, atom.Th:
		t.space = true
	case atom.Hr:
		t.text("----", true)
		t.newline(false)
	case atom.A:
		t.open = append(t.open, t.number(attribute(tok, "href")))
	case atom.Img:
		if alt := strings.TrimSpace(attribute(tok, "alt")); alt != "" {
			t.text("["+alt+"]", false)
		}
	}
}

// number lists a link and returns its number; 0 for what leads nowhere.
func (t *textRenderer) number(href string) int {
	u, ok := safeLink(href)
	if !ok || len(t.links) >= 1000 {
		return 0
	}
	if i := slices.Index(t.links, u); i >= 0 {
		return i + 1
	}
	t.links = append(t.links, u)
	return len(t.links)
}

func (t *textRenderer) bullet() {
	mark := "* "
	if n := len(t.lists); n > 0 {
		if t.lists[n-1] > 0 {
			mark = fmt.Sprintf("%d. ", t.lists[n-1])
			t.lists[n-1]++
		}
		mark = strings.Repeat("  ", min(n, 10)-1) + mark
	}
	t.text(mark, true)
}

func (t *textRenderer) end(a atom.Atom) {
	if isHiding(a) {
		t.hidden = max(t.hidden-1, 0)
		return
	}
	if t.hidden > 0 {
		return
	}
	switch a {
	case atom.A:
		if n := len(t.open); n > 0 {
			if t.open[n-1] > 0 {
				t.space = false
				t.text(fmt.Sprintf("[%d]", t.open[n-1]), true)
			}
			t.open = t.open[:n-1]
		}
	case atom.Pre:
		t.pre = max(t.pre-1, 0)
	case atom.Ul, atom.Ol:
		t.lists = t.lists[:max(len(t.lists)-1, 0)]
	}
	if isBlock(a) && a != atom.Br {
		t.newline(isParagraph(a) && len(t.lists) == 0)
	}
	if a == atom.Blockquote {
		t.quote = max(t.quote-1, 0)
	}
}

// text writes words. White space is one space, unless it is written as it stands.
func (t *textRenderer) text(s string, verbatim bool) {
	s = strings.ReplaceAll(s, "\u00a0", " ")
	if verbatim {
		for i, line := range strings.Split(s, "\n") {
			if i > 0 {
				t.flush()
			}
			t.word(strings.TrimRight(line, "\r"))
		}
		return
	}
	words := strings.Fields(s)
	t.space = t.space || s != "" && strings.TrimLeft(s, " \t\r\n") != s
	for _, w := range words {
		t.word(w)
		t.space = true
	}
	if len(words) > 0 {
		t.space = strings.TrimRight(s, " \t\r\n") != s
	}
}

func (t *textRenderer) word(w string) {
	if t.space && t.line.Len() > 0 && !strings.HasSuffix(t.line.String(), " ") {
		t.line.WriteByte(' ')
	}
	t.space = false
	t.line.WriteString(w)
}

// newline ends the line; blank asks for an empty line before the next words.
func (t *textRenderer) newline(blank bool) {
	if t.line.Len() > 0 {
		t.flush()
	}
	t.space = false
	t.blank = t.blank || blank
}

func (t *textRenderer) flush() {
	if t.blank && t.b.Len() > 0 {
		t.b.WriteByte('\n')
	}
	t.blank = false
	t.b.WriteString(strings.Repeat("> ", min(t.quote, 20)) + strings.TrimRight(t.line.String(), " ") + "\n")
	t.line.Reset()
}

func (t *textRenderer) finish() string {
	t.newline(false)
	for i, link := range t.links {
		if i == 0 {
			t.b.WriteByte('\n')
		}
		fmt.Fprintf(&t.b, "[%d] %s\n", i+1, link)
	}
	return t.b.String()
}

func attribute(tok html.Token, name string) string {
	for _, a := range tok.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// safeLink takes the links that a reader may follow, and refuses those that run something.
func safeLink(href string) (string, bool) {
	u, err := url.Parse(strings.TrimSpace(href))
	if err != nil {
		return "", false
	}
	switch u.Scheme {
	case "http", "https", "mailto", "tel":
		return u.String(), true
	}
	return "", false
}

// pageHead forbids the browser everything but what stands in the page itself.
const pageHead = `<!DOCTYPE html>
<html><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'">
<meta http-equiv="x-dns-prefetch-control" content="off">
<meta name="referrer" content="no-referrer">
<title>%s</title></head><body>
`

// allowedTags stay in a page; of every other element only the content stays, and nothing of hiding ones.
var allowedTags = strings.Fields("a abbr b big blockquote br caption center cite code col colgroup dd del details div dl dt em " +
	"font h1 h2 h3 h4 h5 h6 hr i img ins kbd li mark ol p pre q s samp small span strike strong sub summary sup table tbody td " +
	"tfoot th thead tr tt u ul var")

// allowedAttributes load nothing by themselves; href, src and style are looked at.
var allowedAttributes = strings.Fields("align alt bgcolor border cellpadding cellspacing color colspan dir face height lang rowspan " +
	"size start title valign width")

// Page makes a page of the message for a browser. It loads nothing from outside, runs nothing and sends nothing: what is
// not known to be harmless is left out, pictures of the message stand in the page itself, and a policy forbids the rest.
func (m *Message) Page() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, pageHead, html.EscapeString(SafeLine(m.Header.Text("Subject"))))
	_, body := m.Body()
	if body == nil {
		fmt.Fprintf(&b, "<pre style=\"white-space: pre-wrap\">%s</pre>", html.EscapeString(SafeText(m.BodyText())))
	} else {
		m.sanitize(&b, body.Text())
	}
	b.WriteString("\n</body></html>\n")
	return []byte(b.String())
}

func (m *Message) sanitize(b *strings.Builder, source string) {
	pictures := m.dataURLs()
	hidden := 0
	z := html.NewTokenizer(strings.NewReader(source[:min(len(source), maxHTML)]))
	z.SetMaxBuf(maxHTML)
	for {
		switch z.Next() {
		case html.ErrorToken:
			return
		case html.TextToken:
			if hidden == 0 {
				b.WriteString(html.EscapeString(string(z.Text())))
			}
		case html.StartTagToken, html.SelfClosingTagToken:
			tok := z.Token()
			switch {
			case tok.DataAtom == atom.Body:
				hidden = 0
			case isHiding(tok.DataAtom):
				if tok.Type == html.StartTagToken {
					hidden++
				}
			case hidden == 0 && slices.Contains(allowedTags, tok.Data):
				writeTag(b, tok, pictures)
			}
		case html.EndTagToken:
			tok := z.Token()
			if isHiding(tok.DataAtom) {
				hidden = max(hidden-1, 0)
			} else if hidden == 0 && slices.Contains(allowedTags, tok.Data) {
				b.WriteString("</" + tok.Data + ">")
			}
		}
	}
}

func writeTag(b *strings.Builder, tok html.Token, pictures map[string]string) {
	b.WriteString("<" + tok.Data)
	for _, a := range tok.Attr {
		value, ok := a.Val, slices.Contains(allowedAttributes, a.Key)
		switch {
		case a.Key == "href" && tok.DataAtom == atom.A:
			value, ok = safeLink(a.Val)
		case a.Key == "src" && tok.DataAtom == atom.Img:
			value, ok = pictures[cidOf(a.Val)]
		case a.Key == "style":
			ok = isSafeStyle(a.Val)
		}
		if ok {
			fmt.Fprintf(b, ` %s="%s"`, a.Key, html.EscapeString(value))
		}
	}
	if tok.DataAtom == atom.A {
		b.WriteString(` rel="noreferrer noopener" target="_blank"`)
	}
	b.WriteString(">")
}

// isSafeStyle refuses every style that could fetch something, and every escape that could hide that.
func isSafeStyle(s string) bool {
	s = strings.ToLower(s)
	for _, word := range []string{"url", "image", "import", "expression", `\`, "/*", "position", "behavior"} {
		if strings.Contains(s, word) {
			return false
		}
	}
	return true
}

// cidOf returns the Content-ID that a cid: URL means (RFC 2392), or "".
func cidOf(src string) string {
	src = strings.TrimSpace(src)
	if len(src) < 4 || !strings.EqualFold(src[:4], "cid:") {
		return ""
	}
	id, err := url.PathUnescape(src[4:])
	if err != nil {
		return ""
	}
	return id
}

// dataURLs returns the pictures of the message as data: URLs, by Content-ID. SVG is none of them: it is a program.
func (m *Message) dataURLs() map[string]string {
	urls := map[string]string{}
	for _, p := range m.Pictures() {
		switch p.Type {
		case "image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp":
			urls[p.ID] = "data:" + p.Type + ";base64," + base64.StdEncoding.EncodeToString(p.Bytes())
		}
	}
	return urls
}
