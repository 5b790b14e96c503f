package bounces

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/pabal-mta/mta/sdk/mail"
)

// maxRanges bounds how many languages of a field are looked at.
const maxRanges = 50

// choose picks the language of a report: what the sender accepts (RFC 3282, 3), else what the message is written in, else
// the first that is configured.
func choose(languages []*language, h mail.Header) *language {
	for _, name := range []string{"Accept-Language", "Content-Language"} {
		for _, tag := range ranges(h.Get(name)) {
			if i := slices.IndexFunc(languages, func(l *language) bool { return l.speaks(tag) }); i >= 0 {
				return languages[i]
			}
		}
	}
	return languages[0]
}

// speaks says whether a tag such as ko-KR is of this language (RFC 4647, 3.4).
func (l *language) speaks(tag string) bool {
	primary, _, _ := strings.Cut(tag, "-")
	return strings.EqualFold(primary, l.tag)
}

// ranges reads a list of languages with their weights, the dearest first (RFC 9110, 12.5.4). What is not one is skipped.
func ranges(field string) (tags []string) {
	type weighed struct {
		tag string
		q   float64
	}
	var list []weighed
	for item := range strings.SplitSeq(field, ",") {
		tag, params, _ := strings.Cut(item, ";")
		w := weighed{strings.TrimSpace(tag), 1}
		if v, ok := strings.CutPrefix(strings.TrimSpace(params), "q="); ok {
			q, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
			if err != nil || q < 0 || q > 1 {
				q = 0
			}
			w.q = q
		}
		if w.tag != "" && w.q > 0 && len(list) < maxRanges {
			list = append(list, w)
		}
	}
	slices.SortStableFunc(list, func(a, b weighed) int { return cmp.Compare(b.q, a.q) })
	for _, w := range list {
		tags = append(tags, w.tag)
	}
	return tags
}
