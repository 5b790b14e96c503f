// Package sdk is what the author of a plugin imports.
//
// A plugin is a value with the methods of one or more kinds (Authenticator, Store, Directory, Converter, BounceNotifier,
// Observer and the filters), made by the New of a Plugin that is given to Serve. It runs in a process of its own, which the
// server starts, watches and restarts; what the server does for it in return is Host. Serve refuses to run without a
// server, and says what to do instead. When a call fails, or its method panics, that call is an error and the process
// lives on; when the server dies, the process ends.
package sdk
