// Package schema declares a plugin's configuration by the fields and tags of a Go struct.
//
// Of finds the Schema by reflection; it travels as JSON, so that the core can check a config block without knowing the
// plugin. Decode fills the struct with what the operator wrote. Both refuse rather than guess: an unknown attribute, a
// missing one, a value of the wrong form and a struct that can't be configured are told with the path to them. Decode
// changes nothing when it has found a problem.
//
// The tags of a field:
//
//	mta:"name[,optional][,block]"   the name in the config block; fields without it are the plugin's own
//	default:"5m"                    the value when nothing is written, in the form an operator writes; of a list: words
//	oneof:"reject tag"              the only values that are taken
//	type:"address"                  what the text means, where the Go type does not say: path, address
//	doc:"how long ..."              for people
//
// A field may be a string, a bool, a number, a time.Duration, a Size, a netip.Prefix, a netip.Addr, a *regexp.Regexp, a
// Secret, an encoding.TextUnmarshaler such as mail.Address, a slice of those or a map from strings to them. A struct is a
// block that is written at most once and counts as written empty when it is not there; a pointer to a struct is a block
// that stays nil when it is not there; a slice of either is a block that may be repeated. A field "_ struct{}" with a doc
// tag documents the struct that it is in.
package schema
