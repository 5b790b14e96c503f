// Package pluginv1 is the contract between the mail server and its plugins: plugin.proto, and the Go made from it.
//
// Nothing here is written by hand but the proto file. What turns its messages into values of package mail, and the
// streams into method calls, is package calls beside it.
package pluginv1

//go:generate go run github.com/bufbuild/buf/cmd/buf@v1.75.0 generate
