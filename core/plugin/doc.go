// Package plugin runs plugins: child processes that are verified, started, watched, restarted and drained, and whose
// kinds are there for the rest of the server as Go values.
//
// A plugin that crashes, hangs, floods its log or answers nonsense costs its caller an error and nothing else: the call
// ends within its deadline, the process group is killed, and a fresh process is started, after growing pauses but for
// ever. Calls that may be repeated are repeated once on the fresh process while half of their time is left. After five
// failures in a row calls fail at once for a while. No plugin outlives this process: it is killed when the thread that
// started it dies, and it sees its lifeline, descriptor 3, end.
//
// Large contents go to plugins by descriptor where both sides can, else in chunks (files.go): what does not work costs nothing but
// time.
//
// hashicorp/go-plugin makes the handshake and the connection; starting, waiting and killing are ours (runner.go), because
// its own runner does not see the death of a plugin whose child holds a pipe, leaves orphans, and stops reading a long
// line. What Stop leaves behind is nothing; what a killed server leaves behind is its run directory, which the next one
// sweeps.
package plugin
