//go:build linux

package main

import "testing"

// TestInteropCircle does the page of the circle whole: the letter is opened in mutt too.
func TestInteropCircle(t *testing.T) {
	interop(t, "mutt", "tmux")
	newTranscript(t, circlePage).run(true)
}
