package imap

import (
	"slices"
	"sort"

	"github.com/emersion/go-imap/v2"

	"github.com/pabal-mta/mta/plugins/maildir/box"
)

// numbers returns the numbers of the messages that a set names, in order. What is not there is left out.
func (s *session) numbers(set imap.NumSet) []uint32 {
	var out []uint32
	switch set := set.(type) {
	case imap.SeqSet:
		for _, r := range set {
			out = span(out, r.Start, r.Stop, s.view.Len())
		}
	case imap.UIDSet:
		if imap.IsSearchRes(set) {
			set = s.saved
		}
		for _, r := range set {
			out = s.spanUIDs(out, uint32(r.Start), uint32(r.Stop))
		}
	}
	if !slices.IsSorted(out) {
		slices.Sort(out)
	}
	return slices.Compact(out)
}

// span appends the numbers of a range; 0 is *, the last message.
func span(out []uint32, from, to, last uint32) []uint32 {
	if last == 0 {
		return out
	}
	if from == 0 {
		from = last
	}
	if to == 0 {
		to = last
	}
	from, to = min(from, to), max(from, to)
	for n := max(from, 1); n <= min(to, last); n++ {
		out = append(out, n)
	}
	return out
}

func (s *session) spanUIDs(out []uint32, from, to uint32) []uint32 {
	n := s.view.Len()
	if n == 0 {
		return out
	}
	last := s.view.At(n).UID
	if from == 0 {
		from = last
	}
	if to == 0 {
		to = last
	}
	from, to = min(from, to), max(from, to)
	first := sort.Search(int(n), func(i int) bool { return s.view.At(uint32(i)+1).UID >= from })
	for seq := uint32(first) + 1; seq <= n && s.view.At(seq).UID <= to; seq++ {
		out = append(out, seq)
	}
	return out
}

func (s *session) messages(set imap.NumSet) []*box.Message {
	numbers := s.numbers(set)
	out := make([]*box.Message, len(numbers))
	for i, seq := range numbers {
		out[i] = s.view.At(seq)
	}
	return out
}
