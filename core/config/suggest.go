package config

// suggest returns the one of names that was likely meant, or "". It is near if a third of it, at most, was mistyped.
func suggest(given string, names []string) string {
	best, distance := "", len(given)+1
	for _, name := range names {
		limit := max(1, max(len(given), len(name))/3)
		if n := edits(given, name); n <= limit && n < distance {
			best, distance = name, n
		}
	}
	return best
}

// meant returns "; did you mean ...?" for a name, or "".
func meant(given string, names []string) string {
	if s := suggest(given, names); s != "" {
		return `; did you mean "` + s + `"?`
	}
	return ""
}

// edits counts the letters to insert, drop, change or swap with their neighbour (optimal string alignment). Words longer
// than any name of ours are not compared.
func edits(a, b string) int {
	const longest = 64
	if len(a) > longest || len(b) > longest {
		return max(len(a), len(b))
	}
	var older []int
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], older[j-2]+1)
			}
		}
		older, last = last, row
	}
	return last[len(b)]
}
