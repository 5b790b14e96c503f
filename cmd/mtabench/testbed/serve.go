//go:build linux

package testbed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"

	"github.com/miekg/dns"
)

// Serve starts what a machine offers its mail server: a DNS server that knows *.test and nothing else, so that no look-up
// waits for a time-out, and somebody who reads /dev/log where nobody does. Both end with the context.
func Serve(ctx context.Context) error {
	packets, err := net.ListenPacket("udp", Resolver)
	if err != nil {
		return err
	}
	streams, err := net.Listen("tcp", Resolver)
	if err != nil {
		return err
	}
	udp := &dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(answer)}
	tcp := &dns.Server{Listener: streams, Handler: dns.HandlerFunc(answer)}
	go func() { _ = udp.ActivateAndServe() }() // it ends when the listener is closed
	go func() { _ = tcp.ActivateAndServe() }()
	context.AfterFunc(ctx, func() {
		_ = errors.Join(packets.Close(), streams.Close()) // we end
	})
	return drainLog(ctx)
}

// answer knows the hosts of .test, all of which are this machine, and localhost.
func answer(w dns.ResponseWriter, query *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(query)
	m.RecursionAvailable = true
	if len(query.Question) == 1 {
		record, known := lookUp(query.Question[0])
		if record != nil {
			m.Answer = append(m.Answer, record)
		}
		if !known {
			m.Rcode = dns.RcodeNameError
		}
	}
	_ = w.WriteMsg(m) // who asks and does not wait has only itself to blame
}

func lookUp(q dns.Question) (record dns.RR, known bool) {
	name := strings.ToLower(q.Name)
	head := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 300}
	switch {
	case name == "1.0.0.127.in-addr.arpa.":
		if q.Qtype == dns.TypePTR {
			return &dns.PTR{Hdr: head, Ptr: "localhost."}, true
		}
	case name != "localhost." && (!strings.HasSuffix(name, ".test.") || strings.HasPrefix(name, "_")):
		return nil, false
	case q.Qtype == dns.TypeA:
		return &dns.A{Hdr: head, A: net.IPv4(127, 0, 0, 1)}, true
	case q.Qtype == dns.TypeMX && strings.Count(name, ".") == 2:
		return &dns.MX{Hdr: head, Preference: 10, Mx: "mx." + name}, true
	}
	return nil, true
}

func drainLog(ctx context.Context) error {
	const path = "/dev/log"
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	os.Remove(path) // a link whose target is covered now
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("nobody reads %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = c.Close() }) // we end
	go func() {
		for buf := make([]byte, 8<<10); ; {
			if _, err := c.Read(buf); err != nil {
				return
			}
		}
	}()
	return nil
}
