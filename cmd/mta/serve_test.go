package main

import "testing"

func TestCalledAs(t *testing.T) {
	for exe, want := range map[string]string{
		"/tmp/go-build123/b001/exe/mta":     "go run ./cmd/mta",
		"/usr/local/bin/mta":                "mta",
		"/root/.cache/go-build/ab/cd-d/mta": "go run ./cmd/mta",
		"/tmp/go-build123/b001/mta.test":    "mta", // of a test
		"":                                  "mta",
	} {
		if got := calledAs(exe); got != want {
			t.Errorf("%q: %q, want %q", exe, got, want)
		}
	}
}
