package main

import (
	"context"
	"fmt"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
)

// sorter is a filter that says what class a message is of, and a router that goes by that class and by nothing else.
type sorter struct{}

func beSorter() {
	sdk.Serve(sdk.Plugin[struct{}]{Name: "sorter", Version: "1", Doc: "sorts", Kinds: sorter{},
		New: func(context.Context, struct{}, sdk.Host) (any, error) { return sorter{}, nil }})
}

// Needs are one field and nothing of the content.
func (sorter) Needs() sdk.Needs { return sdk.Needs{Fields: []string{"X-Class", "X-Secret"}} }

// Message holds what is suspicious, and takes away the second of two fields, which it knows by its ID alone.
func (sorter) Message(_ context.Context, _ *mail.Session, m *mail.Message) (mail.Verdict, error) {
	edits := []mail.Edit{mail.SetMeta{Key: "class", Value: m.Header.Get("X-Class")}, mail.AddHeader{Name: "X-Sorted", Value: " yes"}}
	seen := 0
	for _, f := range m.Header {
		if f.Name != "X-Secret" {
			continue
		}
		if seen++; seen > 1 {
			edits = append(edits, mail.RemoveHeader{ID: f.ID})
		}
	}
	if m.Header.Get("X-Class") == "suspicious" {
		return mail.Quarantine("it looks odd", edits...), nil
	}
	return mail.Continue(edits...), nil
}

// Route sends bulk to a route of its own.
func (sorter) Route(_ context.Context, r *mail.Routing) ([]mail.Hop, error) {
	hop := mail.Hop{Reply: mail.NewReply(451, "4.7.0", fmt.Sprintf("class %q from listener %s waits", r.Meta["class"], r.Meta["listener"]))}
	if r.Meta["class"] == "bulk" {
		hop = mail.Hop{Route: "slow"}
	}
	hops := make([]mail.Hop, len(r.Envelope.To))
	for i := range hops {
		hops[i] = hop
	}
	return hops, nil
}
