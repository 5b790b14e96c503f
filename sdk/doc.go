// Package sdk is what the author of a plugin imports.
//
// A plugin is a value with the methods of one or more kinds (Authenticator, Store, Directory, Converter, BounceNotifier
// and the filters), given to Serve. It runs in a process of its own, which the core starts, watches and restarts.
package sdk
