package calls_test

import (
	"context"
	"math"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/pabal-mta/mta/sdk/plugintest"
	pb "github.com/pabal-mta/mta/sdk/pluginv1"
	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
)

// rawHost is a host as a plugin of another language, or a hostile one, meets it: without the checks of our client.
func rawHost(t *testing.T) (pb.HostClient, context.Context, *plugintest.Host) {
	t.Helper()
	fake := new(plugintest.Host)
	srv := calls.NewHostServer(fake, "token")
	l := bufconn.Listen(1 << 20)
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	dial := grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) })
	conn, err := grpc.NewClient("passthrough:host", dial, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		srv.Stop()
		<-ended
	})
	return pb.NewHostClient(conn), metadata.AppendToOutgoingContext(t.Context(), "mta-host-token", "token"), fake
}

func wantCode(t *testing.T, what string, err error, want codes.Code) {
	t.Helper()
	if status.Code(err) != want {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func TestHostileSubmit(t *testing.T) {
	c, ctx, fake := rawHost(t)
	envelope := &pb.SubmitRequest{Part: &pb.SubmitRequest_Envelope{Envelope: &pb.Envelope{Body: pb.BodyType_BODY_TYPE_7BIT, To: []*pb.Recipient{{Address: "a@b.example"}}}}}
	chunk := &pb.SubmitRequest{Part: &pb.SubmitRequest_Chunk{Chunk: make([]byte, 255<<10)}}
	many := &pb.Envelope{Body: pb.BodyType_BODY_TYPE_7BIT, To: make([]*pb.Recipient, 1001)}
	for i := range many.To {
		many.To[i] = &pb.Recipient{Address: "a@b.example"}
	}
	inject := &pb.Envelope{Body: pb.BodyType_BODY_TYPE_7BIT, From: "a@b.example>\r\nRCPT TO:<x@y", To: many.To[:1]}
	endless := []*pb.SubmitRequest{envelope}
	for range 40 {
		endless = append(endless, chunk)
	}
	for what, c2 := range map[string]struct {
		parts []*pb.SubmitRequest
		want  codes.Code
		words string
	}{
		"no envelope":         {[]*pb.SubmitRequest{chunk}, codes.InvalidArgument, "begins with its envelope"},
		"nothing":             {nil, codes.Unavailable, "EOF"},
		"too many recipients": {[]*pb.SubmitRequest{{Part: &pb.SubmitRequest_Envelope{Envelope: many}}}, codes.InvalidArgument, "this one has 1001"},
		"a line break":        {[]*pb.SubmitRequest{{Part: &pb.SubmitRequest_Envelope{Envelope: inject}}}, codes.InvalidArgument, "is not a local part"},
		"10 MiB":              {endless, codes.InvalidArgument, "at most 8388608 bytes"},
		"a huge chunk":        {[]*pb.SubmitRequest{envelope, {Part: &pb.SubmitRequest_Chunk{Chunk: make([]byte, 1<<20)}}}, codes.ResourceExhausted, "larger than max"},
	} {
		stream, err := c.Submit(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range c2.parts {
			if stream.Send(p) != nil {
				break
			}
		}
		_, err = stream.CloseAndRecv()
		wantCode(t, what, err, c2.want)
		if !strings.Contains(status.Convert(err).Message(), c2.words) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if len(fake.Submitted()) != 0 {
		t.Error("something was submitted")
	}
}

// TestStalledSubmit begins submissions that never end: each ends at the host's time-out, and the next has its turn.
func TestStalledSubmit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, ctx, _ := rawHost(t)
		begin := time.Now()
		stream, err := c.Submit(ctx)
		if err != nil {
			t.Fatal(err)
		}
		wantCode(t, "a stalled submission", stream.RecvMsg(new(pb.SubmitResponse)), codes.DeadlineExceeded)
		if d := time.Since(begin); d != calls.HostTimeout {
			t.Errorf("it ended after %v", d)
		}
	})
}

func TestHostileReport(t *testing.T) {
	c, ctx, fake := rawHost(t)
	add := func(name string, v float64) *pb.Sample {
		return &pb.Sample{Name: name, Change: &pb.Sample_Add{Add: v}}
	}
	for what, list := range map[string][]*pb.Sample{
		"bad name": {add("a\n# b 1", 1)}, "upper case": {add("A", 1)}, "long": {add(strings.Repeat("a", 65), 1)}, "empty": {add("", 1)},
		"negative": {add("a", -1)}, "not a number": {add("a", math.NaN())}, "no change": {{Name: "a"}}, "many": make([]*pb.Sample, 101),
	} {
		_, err := c.Report(ctx, &pb.ReportRequest{Samples: list})
		wantCode(t, what, err, codes.InvalidArgument)
	}
	if fake.Metric("a") != 0 {
		t.Error("something was counted")
	}
}

func TestHostileKeys(t *testing.T) {
	c, ctx, fake := rawHost(t)
	long := make([]byte, 513)
	_, err := c.KvGet(ctx, &pb.KvGetRequest{Key: long})
	wantCode(t, "get", err, codes.InvalidArgument)
	_, err = c.KvDelete(ctx, &pb.KvDeleteRequest{})
	wantCode(t, "delete", err, codes.InvalidArgument)
	_, err = c.KvIncr(ctx, &pb.KvIncrRequest{Key: long[:1], By: 1, TtlMs: -1})
	wantCode(t, "incr", err, codes.InvalidArgument)
	_, err = c.KvCompareAndSet(ctx, &pb.KvCompareAndSetRequest{Key: long[:1], New: make([]byte, 64<<10+1)})
	wantCode(t, "swap", err, codes.InvalidArgument)
	_, err = c.KvSet(ctx, &pb.KvSetRequest{Key: long[:1], TtlMs: math.MaxInt64})
	wantCode(t, "set", err, codes.InvalidArgument)
	_, err = c.Resolve(ctx, &pb.ResolveRequest{Name: "a.example"})
	wantCode(t, "no type", err, codes.InvalidArgument)
	_, err = c.Resolve(ctx, &pb.ResolveRequest{Name: "a\r\n", Type: pb.RecordType_RECORD_TYPE_TXT})
	wantCode(t, "no name", err, codes.InvalidArgument)
	if len(fake.Keys()) != 0 {
		t.Error(fake.Keys())
	}
}
