// Package mail holds the words that the core and its plugins share: addresses, envelopes, replies, verdicts, edits.
//
// Names are those of RFC 5321 and RFC 5598. An Address can only be made by parsing, so that nothing unchecked reaches a
// wire, a header or a log; a Reply is checked before it is sent. Nothing here does I/O, and nothing here fails later than
// the function that was called: a value of these types is a value that was found good.
package mail
