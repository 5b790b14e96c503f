// Package python holds the Python SDK, for the commands that write and test plugins in Python.
//
// The SDK itself is the folder pabal_mta. It needs the packages grpc and google.protobuf and no generated code: it makes
// its message classes at run time from plugin.binpb, the descriptor of plugin.proto, so that it works with any version of
// the protobuf runtime. "go generate" writes that file, and a test fails when it is stale.
package python

import "embed"

//go:generate go test -run TestDescriptor -count=1 . -update

// Files is the folder pabal_mta.
//
//go:embed pabal_mta/*.py pabal_mta/plugin.binpb
var Files embed.FS
