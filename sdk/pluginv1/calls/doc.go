// Package calls puts the kinds of plugin onto the wire of plugin.proto: the Client is the server's end, the Server the
// plugin's end.
//
// Requests that wait while a frame is going out travel together in the next one, and so do answers. Content of more than
// 64 KiB goes over a stream of its own, in chunks, so that it holds nobody up. What comes in is checked: an answer that
// breaks the contract is a *BadAnswer and never a value of package mail. When the connection is lost every waiting call
// ends with ErrLost; nothing is asked twice here, that is for the caller to decide.
package calls
