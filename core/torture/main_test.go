package main

import (
	"strings"
	"testing"
)

func TestPartsAreChosenByName(t *testing.T) {
	all, err := choose(nil)
	if err != nil || len(all) != len(parts) {
		t.Errorf("%d parts, %v", len(all), err)
	}
	two, err := choose([]string{"kill", "errors"})
	if err != nil || len(two) != 2 || two[0].name != "kill" || two[1].name != "errors" {
		t.Errorf("%v, %v", two, err)
	}
	if _, err := choose([]string{"kill", "tickle"}); err == nil || !strings.Contains(err.Error(), `"tickle"`) {
		t.Errorf("%v", err)
	}
}

func TestWrongFlagIsRefused(t *testing.T) {
	if err := run(t.Context(), []string{"-kills", "many"}); err == nil {
		t.Error("it was taken")
	}
}
