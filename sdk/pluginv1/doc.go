// Package pluginv1 is the contract between the mail server and its plugins: plugin.proto, and the Go made from it.
//
// Nothing here is written by hand but the proto file. What turns its messages into values of package mail, and the
// streams into method calls, is package calls beside it.
//
// The contract only grows. testdata has two frozen forms of it, which go test and .ci/run hold it against: v1-first.binpb, the
// first that there was, and v1.binpb, made anew at each release with
//
//	go run github.com/bufbuild/buf/cmd/buf@v1.75.0 build -o testdata/v1.binpb
//
// after the old one has been found unbroken. The first is never made anew: it is what plugins of v1 may have been built with.
package pluginv1

//go:generate go run github.com/bufbuild/buf/cmd/buf@v1.75.0 generate
