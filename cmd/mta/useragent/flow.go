package useragent

import "strings"

// flowWidth is where lines are broken (RFC 3676, 4.2: no more than 78, better 72).
const flowWidth = 72

// Flow writes text as format=flowed (RFC 3676): long lines are broken softly, by a space at their end, and a reader joins
// them again. Lines that start with ">" are quoted text.
func Flow(text string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		depth, rest := cutQuotes(line)
		if rest != "-- " {
			rest = strings.TrimRight(rest, " \r")
		}
		prefix := strings.Repeat(">", depth)
		for _, piece := range softBreak(rest, flowWidth-depth-1) {
			b.WriteString(prefix)
			if depth > 0 && piece != "" || needsStuffing(piece) {
				b.WriteByte(' ')
			}
			b.WriteString(piece + "\n")
		}
	}
	return b.String()
}

// needsStuffing tells lines that would be read as something else (RFC 3676, 4.4).
func needsStuffing(s string) bool {
	return strings.HasPrefix(s, " ") || strings.HasPrefix(s, ">") || strings.HasPrefix(s, "From ")
}

// cutQuotes takes quote marks off a line, written as ">>" or as "> >".
func cutQuotes(line string) (depth int, rest string) {
	rest = line
	for {
		next, ok := strings.CutPrefix(rest, ">")
		if !ok {
			spaced := strings.TrimPrefix(rest, " ")
			if depth == 0 || !strings.HasPrefix(spaced, ">") {
				break
			}
			next = spaced[1:]
		}
		depth++
		rest = next
	}
	if depth > 0 {
		rest = strings.TrimPrefix(rest, " ")
	}
	return depth, rest
}

// softBreak cuts a line after spaces so that each piece but the last ends with one. A word is never cut.
func softBreak(line string, limit int) []string {
	var pieces []string
	for Width(line) > limit {
		cut, used := 0, 0
		for i, c := range line {
			used += runeWidth(c)
			if used > limit && cut > 0 {
				break
			}
			if c == ' ' && i+1 < len(line) && strings.TrimLeft(line[:i], " ") != "" {
				cut = i + 1
			}
		}
		if cut == 0 {
			break
		}
		pieces = append(pieces, line[:cut])
		line = line[cut:]
	}
	return append(pieces, line)
}

// Unflow joins the softly broken lines of format=flowed text. Quoted lines start with as many "> " as they are deep.
func Unflow(text string, delsp bool) string {
	var b strings.Builder
	open, openDepth := false, 0
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		depth := len(line) - len(strings.TrimLeft(line, ">"))
		line = strings.TrimPrefix(line[depth:], " ")
		signature := line == "-- "
		if open && (depth != openDepth || signature) {
			b.WriteByte('\n')
			open = false
		}
		if !open {
			marks := strings.Repeat("> ", depth)
			if line == "" {
				marks = strings.TrimSuffix(marks, " ")
			}
			b.WriteString(marks)
		}
		open = strings.HasSuffix(line, " ") && !signature
		openDepth = depth
		if open && delsp {
			line = line[:len(line)-1]
		}
		b.WriteString(line)
		if !open {
			b.WriteByte('\n')
		}
	}
	if open {
		b.WriteByte('\n')
	}
	return b.String()
}

// Quote puts a quote mark before each line.
func Quote(text string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		switch {
		case line == "-- ":
			return strings.TrimRight(b.String(), "> \n") + "\n" // a signature is not quoted
		case line == "":
			b.WriteString(">\n")
		case line[0] == '>':
			b.WriteString(">" + line + "\n")
		default:
			b.WriteString("> " + line + "\n")
		}
	}
	return b.String()
}
