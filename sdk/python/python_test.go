package python

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"

	"github.com/pabal-mta/mta/sdk/pluginv1"
)

var update = flag.Bool("update", false, "write plugin.binpb")

func TestDescriptor(t *testing.T) {
	want, err := proto.MarshalOptions{Deterministic: true}.Marshal(protodesc.ToFileDescriptorProto(pluginv1.File_plugin_proto))
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("pabal_mta/plugin.binpb", want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got, err := os.ReadFile("pabal_mta/plugin.binpb"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("pabal_mta/plugin.binpb is not that of plugin.proto (%v): go generate ./sdk/python", err)
	}
}

// TestPython runs the tests that are written in Python.
func TestPython(t *testing.T) {
	const python = "/usr/bin/python3"
	if out, err := exec.Command(python, "-c", "import grpc, google.protobuf").CombinedOutput(); err != nil {
		t.Skipf("no Python with grpc and protobuf (Debian: python3-grpcio, python3-protobuf): %s", bytes.TrimSpace(out))
	}
	cmd := exec.Command(python, "-B", "-m", "unittest", "discover", "-s", "tests")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
