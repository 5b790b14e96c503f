// Package pipeline asks the filters of a stage, in the order of the file, and ends in one verdict.
//
// A filter is out of our hands, so nothing it does is trusted: no answer in time, an error, a panic, a verdict that breaks
// the contract or an edit that can't be made all lead to what the step's on_error says, and none of the step's edits
// remain. A peer is never told which plugin failed or why; the operator is, by an event. A filter that does not come back
// is left behind, and asked no more when too many of its calls hang.
//
// Edits are staged. Those of a step that ended well are seen by the steps after it, and are handed to the caller with the
// verdict. A message is edited by putting a new header before its old body, which is never copied.
//
// A session, a message and its content are read by filters that may come late, so the caller never writes into what a
// Content reads from, nor into the fields of a Header.
package pipeline
