import dataclasses
import datetime
import ipaddress
import os
import queue
import socket
import struct
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))

import pabal_mta as mta  # noqa: E402
from pabal_mta import host as hosts  # noqa: E402
from pabal_mta import files, server  # noqa: E402


@dataclasses.dataclass
class Rule:
    name: str = mta.setting(doc="required")
    tries: int = mta.setting(default=3)


@dataclasses.dataclass
class Config:
    delay: datetime.timedelta = mta.setting(default="1h30m")
    nets: list[str] = mta.setting(default="192.0.2.0/24 ::1", type="cidr")
    limit: int = mta.setting(default="10MiB", type="size")
    mode: str = mta.setting(default="tag", one_of=["tag", "reject"])
    token: mta.Secret = mta.setting(default="")
    users: dict[str, str] = mta.setting(default="")
    strict: bool = mta.setting(default=True)
    rule: list[Rule] = mta.setting(default="")


def problems(config, data):
    try:
        mta.decode(config, data)
    except mta.Problems as e:
        return [".".join(path) for path, _ in e.problems]
    return None


class ConfigTest(unittest.TestCase):
    def test_defaults(self):
        c = mta.decode(Config, b"")
        self.assertEqual(c.delay, datetime.timedelta(hours=1, minutes=30))
        self.assertEqual(c.nets, [ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("::1")])
        self.assertEqual((c.limit, c.mode, c.users, c.strict, c.rule), (10 << 20, "tag", {}, True, []))

    def test_values(self):
        c = mta.decode(Config, b'{"delay": "2d", "limit": 7, "token": "x", "users": {"a": "b"}, "rule": [{"name": "r"}]}')
        self.assertEqual((c.delay.days, c.limit, c.users, repr(c.token)), (2, 7, {"a": "b"}, "(secret)"))
        self.assertEqual(c.rule, [Rule("r", 3)])

    def test_wrong(self):
        for data, want in {
            b"{": [""], b"[]": [""], b"{} {}": [""], b"[" * 9000: [""], b'{"dealy": "1s"}': ["dealy"], b'{"delay": "1 s"}': ["delay"],
            b'{"delay": 5}': ["delay"], b'{"nets": "x"}': ["nets"], b'{"nets": ["::1", "x"]}': ["nets.1"], b'{"strict": 1}': ["strict"],
            b'{"mode": "x"}': ["mode"], b'{"limit": true}': ["limit"], b'{"users": {"a": 1}}': ["users.a"],
            b'{"rule": [{"name": "a"}, {"nmae": 1}]}': ["rule.1.nmae", "rule.1.name"], b'{"token": 1}': ["token"],
        }.items():
            self.assertEqual(problems(Config, data), want, data)

    def test_dict(self):
        schema = {"attributes": [{"name": "n", "type": "int", "required": True}]}
        self.assertEqual(mta.decode(schema, b'{"n": 4}'), {"n": 4})
        self.assertEqual(problems(schema, b"{}"), ["n"])


class Filter:
    needs_body = False

    def __init__(self, config, host):
        pass

    def rcpt(self, ctx, session, recipient):
        what = recipient.address.split("@")[0]
        if what == "reply":
            raise mta.ReplyError(452, "4.2.2", "full")
        if what == "mistake":
            return {}["x"]
        if what == "down":
            raise ConnectionRefusedError("the database")
        if what == "none":
            return None
        return mta.proceed()

    def message(self, ctx, session, message, content):
        return mta.proceed()


class AnswerTest(unittest.TestCase):
    def setUp(self):
        self.service = server._Service(mta.Plugin("t", "1", "", Filter, Config))
        server._log.disabled = True

    def ask(self, **call):
        return self.service.answer(mta.Context(0), mta.Request(seq=7, **call))

    def test_needs(self):
        def kind(**attributes):
            new = type("Filter", (), {"message": lambda *_: mta.proceed(), **attributes})
            k = server._Service(mta.Plugin("p", "1", "doc", new)).kinds()[0]
            return k.header, list(k.header_names), k.body, k.body_prefix

        self.assertEqual(kind(), (True, [], True, 0))
        self.assertEqual(kind(needs_header=False, needs_body=False), (False, [], False, 0))
        self.assertEqual(kind(needs_fields=("Subject", "From"), needs_prefix=4096), (True, ["Subject", "From"], True, 4096))
        self.assertEqual(kind(needs_header=False, needs_body=False, needs_fields=["To"], needs_prefix=1), (True, ["To"], True, 1))
        for wrong in ({"needs_fields": "Subject"}, {"needs_fields": [""]}, {"needs_prefix": 65537}, {"needs_prefix": -1}):
            with self.assertRaises((TypeError, ValueError)):
                kind(**wrong)

    def test_kinds(self):
        self.assertEqual([(k.name, k.header, k.body) for k in self.service.kinds()], [("rcpt", False, False), ("message", True, False)])

    def test_errors(self):
        self.service.value = Filter(None, None)
        for what, want in {
            "reply": mta.ERROR_KIND_REPLY, "mistake": mta.ERROR_KIND_PANIC, "down": mta.ERROR_KIND_FAILED, "ok": 0,
        }.items():
            r = self.ask(rcpt=mta.RcptCall(recipient=mta.Recipient(address=what + "@x.example")))
            self.assertEqual((r.seq, r.error.kind), (7, want), what)
        self.assertEqual(self.ask(connect=mta.SessionCall()).error.kind, mta.ERROR_KIND_UNSUPPORTED)
        self.assertEqual(self.ask().error.kind, mta.ERROR_KIND_UNSUPPORTED)

    def test_no_verdict_is_no_acceptance(self):
        self.service.value = Filter(None, None)
        r = self.ask(rcpt=mta.RcptCall(recipient=mta.Recipient(address="none@x.example")))
        self.assertNotIn(r.verdict.action, (mta.ACTION_CONTINUE, mta.ACTION_ACCEPT))


class Slow:
    def __init__(self, config, host):
        self.go = threading.Event()

    def connect(self, ctx, session):
        self.go.wait(10)
        return mta.proceed()

    def convert(self, ctx, conversion, content):
        return mta.converted(b"x" * (1500 << 10) * int(conversion.id), mta.BODY_TYPE_7BIT)


class Router:
    def __init__(self, config, host):
        pass

    def route(self, ctx, routing):
        return [mta.hop("a.example:587"), mta.hop_mx(), mta.hop_route("way"), mta.hop_reply(550, "5.1.1", "who?")][:len(routing.envelope.to)]


class RouterTest(unittest.TestCase):
    def test_route(self):
        service = server._Service(mta.Plugin("t", "1", "", Router, None))
        self.assertEqual([k.name for k in service.kinds()], ["router"])
        service.value = Router(None, None)
        to = [mta.Recipient(address="x@a.example")] * 4
        hops = service.answer(None, mta.Request(seq=7, route=mta.RouteCall(envelope=mta.Envelope(to=to)))).hops.hops
        self.assertEqual((list(hops[0].hosts), hops[1].mx, hops[2].route, hops[3].reply.code), (["a.example:587"], True, "way", 550))


class Observer:
    def __init__(self, config, host):
        self.heard = []

    def observe(self, ctx, events):
        self.heard += [(e.name, e.to) for e in events]
        if events[0].name == "trouble":
            raise mta.Failed("tell me again")


class ObserverTest(unittest.TestCase):
    def test_observe(self):
        service = server._Service(mta.Plugin("t", "1", "", Observer, None))
        self.assertEqual([k.name for k in service.kinds()], ["observer"])
        service.value = Observer(None, None)
        events = [mta.Event(name="queued"), mta.Event(name="attempt", to="ann@x.example")]
        answer = service.answer(None, mta.Request(seq=7, observe=mta.ObserveCall(events=events)))
        self.assertEqual((answer.seq, answer.WhichOneof("result")), (7, "observed"))
        self.assertEqual(service.value.heard, [("queued", ""), ("attempt", "ann@x.example")])
        answer = service.answer(None, mta.Request(observe=mta.ObserveCall(events=[mta.Event(name="trouble")])))
        self.assertEqual(answer.error.kind, mta.ERROR_KIND_FAILED)


class HostTest(unittest.TestCase):
    """What needs no server; the tests in Go have one."""

    def test_no_host(self):
        host = mta.Host(server._log, "")
        with self.assertRaises(mta.HostFailed):
            host.kv.get("x")
        host.metrics.count("n")
        host.close()

    def test_ends_with_its_call(self):
        """A call to the host has the time of the call that it is made in, and is not made when nobody waits any more."""
        host, timeouts = mta.Host(server._log, ""), []

        class Asks:
            def connect(self, ctx, session):
                host.kv.get("x")
                return mta.proceed()

        class Channel:
            def unary_unary(self, *_):
                def call(_request, timeout, metadata):
                    timeouts.append(timeout)
                    return mta.KvGetResponse()
                return call

        host._channel = Channel()
        service = server._Service(mta.Plugin("t", "1", "", Asks, None))
        service.value = Asks()
        ctx = mta.Context(2000)
        self.assertFalse(service.answer(ctx, mta.Request(connect=mta.SessionCall())).HasField("error"))
        host.kv.get("outside of a call")
        ctx.cancelled.set()
        self.assertEqual(service.answer(ctx, mta.Request(connect=mta.SessionCall())).error.kind, mta.ERROR_KIND_FAILED)
        self.assertEqual(len(timeouts), 2)
        self.assertLessEqual(timeouts[0], 2)
        self.assertEqual(timeouts[1], 30)

    def test_metrics(self):
        sent, fail = [], True

        def report(samples):
            sent.append({s.name: s.set if s.HasField("set") else s.add for s in samples})
            if fail:
                raise mta.HostFailed("later")

        m = hosts.Metrics(server._log, report)
        m.count("n", 2), m.gauge("g", 1)
        m.flush()
        fail = False
        m.count("n", 3), m.gauge("g", -1), m.gauge("n", 9), m.count("n", -1), m.count("n", float("nan")), m.count("No")
        m.flush()
        m.close()
        self.assertEqual(sent, [{"n": 2, "g": 1}, {"n": 5, "g": -1}])
        for i in range(200):
            m.count("c%d" % i)
        m.flush()
        self.assertEqual(len(sent[-1]), 98)

    def test_ttl(self):
        for ttl, want in {None: 0, 0: 0, 1: 1000, 1e-9: 1, datetime.timedelta(days=1): 86400000}.items():
            self.assertEqual(hosts._millis(ttl), want)
        for ttl in (-1, -1e-9, float("nan"), float("inf")):
            with self.assertRaises(mta.LimitBroken):
                hosts._millis(ttl)


class StreamTest(unittest.TestCase):
    def setUp(self):
        self.service = server._Service(mta.Plugin("t", "1", "", Slow, None))
        self.service.value = self.value = Slow(None, None)
        self.addCleanup(self.value.go.set)
        self.requests = queue.SimpleQueue()
        self.stream = server._Stream(self.service, iter(self.requests.get, None))
        self.answers = self.stream.responses()
        self.addCleanup(self.requests.put, None)

    def send(self, *requests, cancel=()):
        self.requests.put(mta.Requests(requests=requests, cancel=cancel))

    def test_frames_are_bounded(self):
        self.send(*[mta.Request(seq=n, convert=mta.Conversion(id="1")) for n in range(1, 11)])
        for _ in range(1000):  # until all answers wait together
            if self.stream.out.qsize() == 20:
                break
            time.sleep(0.01)
        seen = set()
        while len(seen) < 10:
            batch = next(self.answers)
            self.assertLess(batch.ByteSize(), 5 << 20)
            seen.update(r.seq for r in batch.responses if r.HasField("converted"))

    def test_too_large(self):
        self.send(mta.Request(seq=1, convert=mta.Conversion(id="2")))
        self.assertEqual(next(self.answers).responses[0].error.kind, mta.ERROR_KIND_FAILED)

    def test_cancel(self):
        self.send(mta.Request(seq=1, connect=mta.SessionCall()), cancel=[1, 99])
        r, = next(self.answers).responses
        self.assertEqual((r.seq, r.error.kind), (1, mta.ERROR_KIND_TIMEOUT))
        self.value.go.set()
        self.send(mta.Request(seq=2, connect=mta.SessionCall()))  # 1 is not answered again
        self.assertEqual([r.seq for r in next(self.answers).responses], [2])

    def test_deadline(self):
        self.send(mta.Request(seq=1, timeout_ms=20, connect=mta.SessionCall()))
        r, = next(self.answers).responses
        self.assertEqual((r.seq, r.error.kind), (1, mta.ERROR_KIND_TIMEOUT))

    def test_end(self):
        self.requests.put(None)
        self.assertEqual(list(self.answers), [])


class TakerTest(unittest.TestCase):
    def setUp(self):
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(self.ours.close)
        self.taker = files.Taker(theirs)
        self.addCleanup(theirs.close)

    def send(self, token, text, wait=60_000):
        with tempfile.TemporaryFile() as f:
            f.write(text)
            f.flush()
            socket.send_fds(self.ours, [struct.pack(">QI", token, wait)], [f.fileno()])

    def take(self, **fields):
        return self.taker.take(mta.Content(**fields))

    def test_take(self):
        self.send(1, b"one")
        self.send(2, b"xxtwo")
        with self.take(token=2, data=b"head ", offset=2, size=8) as two, self.take(token=1, size=3) as one:
            self.assertEqual((one.read(), two.read(), two.read(3), two.read(7), two.read(99)), (b"one", b"head two", b"hea", b"head tw", b"head two"))
        with self.assertRaises(OSError):
            one.read()  # not what else the number stands for by then

    def test_absent(self):
        self.send(1, b"one")
        for fields in {"token": 7, "size": 3}, {"token": 1, "size": 4}:
            with self.assertRaises(OSError):
                self.take(**fields)
        self.ours.close()
        with self.assertRaises(OSError):
            self.take(token=9, size=1)

    def test_forgotten(self):
        before = len(os.listdir("/proc/self/fd"))
        for token in range(1, 20):
            self.send(token, b"nobody asks", wait=0)
            with self.assertRaises(OSError):
                self.take(token=99, size=1)
        self.assertLess(len(os.listdir("/proc/self/fd")), before + 3)


if __name__ == "__main__":
    unittest.main()
