package pluginv1_test

import (
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/pabal-mta/mta/sdk/pluginv1"
)

// TestContractOnlyGrows holds the contract against its frozen forms: all that was in them is there, and means the same on the
// wire. buf, which knows more ways of breaking it, is asked by .ci/run.
func TestContractOnlyGrows(t *testing.T) {
	list, err := filepath.Glob("testdata/*.binpb")
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	now := pluginv1.File_plugin_proto
	for _, path := range list {
		old := frozen(t, path)
		for i := range old.Messages().Len() {
			sameMessage(t, path, old.Messages().Get(i), now.Messages())
		}
		for i := range old.Enums().Len() {
			sameEnum(t, path, old.Enums().Get(i), now.Enums().ByName(old.Enums().Get(i).Name()))
		}
		for i := range old.Services().Len() {
			sameService(t, path, old.Services().Get(i), now.Services().ByName(old.Services().Get(i).Name()))
		}
	}
}

func frozen(t *testing.T, path string) protoreflect.FileDescriptor {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(data, &set); err != nil {
		t.Fatal(err)
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		t.Fatal(err)
	}
	file, err := files.FindFileByPath("plugin.proto")
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func sameMessage(t *testing.T, path string, old protoreflect.MessageDescriptor, all protoreflect.MessageDescriptors) {
	t.Helper()
	now := all.ByName(old.Name())
	if now == nil {
		t.Errorf("%s: message %s is gone", path, old.FullName())
		return
	}
	for i := range old.Fields().Len() {
		f := old.Fields().Get(i)
		g := now.Fields().ByNumber(f.Number())
		if g == nil || g.Name() != f.Name() || g.Kind() != f.Kind() || g.Cardinality() != f.Cardinality() || typeOf(g) != typeOf(f) || oneof(g) != oneof(f) {
			t.Errorf("%s: field %s = %d is not what it was: %v", path, f.FullName(), f.Number(), g)
		}
	}
}

// typeOf is the name of the message or enum that a field holds.
func typeOf(f protoreflect.FieldDescriptor) protoreflect.FullName {
	switch {
	case f.Message() != nil:
		return f.Message().FullName()
	case f.Enum() != nil:
		return f.Enum().FullName()
	}
	return ""
}

func oneof(f protoreflect.FieldDescriptor) protoreflect.Name {
	if o := f.ContainingOneof(); o != nil {
		return o.Name()
	}
	return ""
}

func sameEnum(t *testing.T, path string, old, now protoreflect.EnumDescriptor) {
	t.Helper()
	if now == nil {
		t.Errorf("%s: enum %s is gone", path, old.FullName())
		return
	}
	for i := range old.Values().Len() {
		v := old.Values().Get(i)
		if w := now.Values().ByNumber(v.Number()); w == nil || w.Name() != v.Name() {
			t.Errorf("%s: %s = %d is not what it was", path, v.FullName(), v.Number())
		}
	}
}

func sameService(t *testing.T, path string, old, now protoreflect.ServiceDescriptor) {
	t.Helper()
	if now == nil {
		t.Errorf("%s: service %s is gone", path, old.FullName())
		return
	}
	for i := range old.Methods().Len() {
		m := old.Methods().Get(i)
		n := now.Methods().ByName(m.Name())
		if n == nil || n.Input().FullName() != m.Input().FullName() || n.Output().FullName() != m.Output().FullName() ||
			n.IsStreamingClient() != m.IsStreamingClient() || n.IsStreamingServer() != m.IsStreamingServer() {
			t.Errorf("%s: %s is not what it was", path, m.FullName())
		}
	}
}
