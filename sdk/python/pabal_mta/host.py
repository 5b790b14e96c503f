"""What the server does for a plugin: the service Host of plugin.proto.

All of it works from the plugin's making on, until it is closed, from every thread. A call ends with the time of the call
in which it is made, and after 30 seconds at the latest. What fails raises HostFailed, or one of its subclasses; a method
that lets it pass has failed, and the server answers as it does then.
"""
import contextvars
import datetime
import ipaddress
import logging
import math
import re
import threading
import urllib.parse

import grpc

from . import answers, wire

__all__ = ["Host", "HostFailed", "LimitBroken", "Exhausted", "NotProvided", "NotFound"]

_TIMEOUT = 30
_CHUNK = 255 << 10
_MAX_SUBMIT = 8 << 20
_MAX_SERIES = 100
_REPORT_EVERY, _REPORT_TIMEOUT = 1, 5
_METRIC = re.compile(r"[a-z][a-z0-9_]{0,63}")

# The Context of the call that runs in this thread, if any.
current = contextvars.ContextVar("current", default=None)


class HostFailed(answers.Failed):
    """The server did not do what it was asked for; unless it is a subclass, that may pass."""


class LimitBroken(HostFailed):
    """A key, value, name or message is too big or not legal."""


class Exhausted(HostFailed):
    """The plugin has used up its share, of storage or of messages per second."""


class NotProvided(HostFailed):
    """mta.hcl, or the server, does not provide it."""


class NotFound(HostFailed):
    """The DNS has no such record."""


_KINDS = {
    grpc.StatusCode.INVALID_ARGUMENT: LimitBroken, grpc.StatusCode.RESOURCE_EXHAUSTED: Exhausted,
    grpc.StatusCode.FAILED_PRECONDITION: NotProvided,
}


class Host:
    """What the server does for a plugin. One made without a socket, as in a test, has but a log and a folder."""

    def __init__(self, log, state_dir, socket="", token=""):
        self.log = log
        self.state_dir = state_dir  # the plugin's own, and it outlives it
        self._closed = False
        self._channel = grpc.insecure_channel("unix:" + urllib.parse.quote(socket), options=[
            ("grpc.max_receive_message_length", 16 << 20), ("grpc.enable_http_proxy", 0),
        ]) if socket else None
        self._metadata = (("mta-host-token", token),)
        self.kv, self.resolver, self.metrics = KV(self._ask), Resolver(self._ask), Metrics(log, self._report)

    def submit(self, content, to=(), sender="", envelope=None):
        """Puts a new message into the server's queue and returns its ID when it is on stable storage. The content is bytes,
        its lines ended by CRLF; to has addresses, or Recipients. An Envelope says more. A refusal is a ReplyError."""
        content = _bytes(content)
        if len(content) > _MAX_SUBMIT:
            raise LimitBroken("a message has at most %d bytes" % _MAX_SUBMIT)
        e = wire.Envelope()
        if envelope is not None:
            e.CopyFrom(envelope)
        e.body = e.body or wire.BODY_TYPE_7BIT  # the server marks what has 8-bit bytes
        if sender:
            setattr(e, "from", sender)
        e.to.extend(wire.Recipient(address=r) if isinstance(r, str) else r for r in to)

        def parts():
            yield wire.SubmitRequest(envelope=e)
            for at in range(0, len(content), _CHUNK):
                yield wire.SubmitRequest(chunk=content[at:at + _CHUNK])

        answer = self._ask("Submit", parts(), wire.SubmitResponse, stream=True)
        if answer.HasField("error"):
            raise _error(answer.error)
        return answer.id

    def authenticate(self, login):
        """Asks the authenticator that the plugin's block names with auth = plugin.NAME whether a Login is right, and returns
        its Identity. A wrong one is BadLogin."""
        answer = self._ask("Authenticate", wire.AuthenticateRequest(login=login), wire.AuthenticateResponse)
        if answer.HasField("error"):
            raise _error(answer.error)
        return answer.identity

    def close(self):
        """Reports the metrics for the last time. The SDK calls it after the plugin was closed."""
        self.metrics.close()
        self._closed = True
        if self._channel is not None:
            self._channel.close()

    def _report(self, samples):
        self._ask("Report", wire.ReportRequest(samples=samples), wire.ReportResponse, timeout=_REPORT_TIMEOUT)

    def _ask(self, method, request, answer, timeout=_TIMEOUT, stream=False):
        ctx = current.get()
        if ctx is not None and ctx.cancelled.is_set():
            raise HostFailed("nobody waits for this call any more")
        if ctx is not None and ctx.deadline is not None:
            timeout = min(timeout, ctx.remaining())
        if self._channel is None:
            raise HostFailed("no host was named: this is a test, or the server is older than this plugin's SDK")
        make = self._channel.stream_unary if stream else self._channel.unary_unary
        call = make("/mta.plugin.v1.Host/" + method, lambda m: m.SerializeToString(), answer.FromString)
        try:
            if self._closed:
                raise HostFailed("the plugin was closed")
            return call(request, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as e:
            raise _KINDS.get(e.code(), HostFailed)("the server: %s" % e.details()) from None


def _error(e):
    if e.kind == wire.ERROR_KIND_BAD_LOGIN:
        return answers.BadLogin()
    if e.kind == wire.ERROR_KIND_REPLY:
        return answers.ReplyError(e.reply.code, e.reply.enhanced, e.reply.text)
    return HostFailed(e.text)


def _bytes(value):
    return value.encode("utf-8") if isinstance(value, str) else bytes(value)


def _millis(ttl):
    """A time to live in seconds, or as a timedelta, in milliseconds; rounded up, for 0 is for ever."""
    if ttl is None:
        return 0
    seconds = ttl.total_seconds() if isinstance(ttl, datetime.timedelta) else ttl
    if not 0 <= seconds < 1 << 40:
        raise LimitBroken("a time to live is not negative and at most ten years")
    return math.ceil(seconds * 1000)


class KV:
    """A store of small values that is the plugin's own: it belongs to the label of the plugin's block, survives restarts and
    reloads, and is shared by all processes of the plugin. A key is a str or bytes, 1 to 512 bytes, a value at most 64 KiB.
    What lives for a ttl of seconds, or a timedelta, is gone afterwards; None is for ever. A change that returned is on
    stable storage."""

    def __init__(self, ask):
        self._ask = ask

    def get(self, key):
        """The value of a key as bytes, or None."""
        answer = self._ask("KvGet", wire.KvGetRequest(key=_bytes(key)), wire.KvGetResponse)
        return answer.value if answer.found else None

    def set(self, key, value, ttl=None):
        """Sets the value of a key."""
        self._ask("KvSet", wire.KvSetRequest(key=_bytes(key), value=_bytes(value), ttl_ms=_millis(ttl)), wire.KvSetResponse)

    def delete(self, key):
        """Removes a key, which need not be there."""
        self._ask("KvDelete", wire.KvDeleteRequest(key=_bytes(key)), wire.KvDeleteResponse)

    def incr(self, key, by=1, ttl=None):
        """Adds to a number and returns the sum, as one step. It is 0 where there is none; ttl goes for a number that this
        call begins. get returns it in decimal digits."""
        return self._ask("KvIncr", wire.KvIncrRequest(key=_bytes(key), by=by, ttl_ms=_millis(ttl)), wire.KvIncrResponse).value

    def compare_and_set(self, key, old, new, ttl=None):
        """Changes a key from the old value to the new one, as one step, and says whether it had the old one. None is no
        value: as old, the key is made only where it is not there; as new, it is deleted."""
        request = wire.KvCompareAndSetRequest(key=_bytes(key), ttl_ms=_millis(ttl))
        if old is not None:
            request.old = _bytes(old)
        if new is not None:
            request.new = _bytes(new)
        return self._ask("KvCompareAndSet", request, wire.KvCompareAndSetResponse).swapped


class Resolver:
    """The server's cache of the DNS. A name that does not exist, or has no such record, is NotFound."""

    def __init__(self, ask):
        self._ask = ask

    def _resolve(self, kind, name):
        answer = self._ask("Resolve", wire.ResolveRequest(type=kind, name=answers.text(name)), wire.ResolveResponse)
        if answer.not_found:
            raise NotFound("the name %s has no such record" % name)
        return answer

    def mx(self, domain):
        """The hosts that take mail for a domain, the best first, each with its preference."""
        return list(self._resolve(wire.RECORD_TYPE_MX, domain).mx)

    def addresses(self, host):
        """The IPv4 and IPv6 addresses of a host, as of the module ipaddress."""
        return [ipaddress.ip_address(a) for a in self._resolve(wire.RECORD_TYPE_ADDRESS, host).addresses]

    def txt(self, name):
        """The text records of a name, each as bytes."""
        return list(self._resolve(wire.RECORD_TYPE_TXT, name).texts)


class Metrics:
    """The plugin's own figures, shown at /metrics as mta_plugin_LABEL_NAME. A name has lower-case letters, digits and _, a
    letter first, at most 64; a plugin may have 100 of them. What breaks these rules is told in the log once and not counted.
    Changes are handed to the server about every second."""

    def __init__(self, log, report):
        self._log, self._report = log, report
        self._lock, self._turn = threading.Lock(), threading.Lock()
        self._gauges, self._values, self._changed = {}, {}, set()
        self._refused = self._closed = False
        self._timer = None

    def count(self, name, n=1):
        """Adds to a counter; n is not negative."""
        self._change(name, False, n)

    def gauge(self, name, value):
        """Sets a value that may rise and fall."""
        self._change(name, True, value)

    def _change(self, name, gauge, value):
        with self._lock:
            if name not in self._gauges and _METRIC.fullmatch(name) and len(self._gauges) < _MAX_SERIES:
                self._gauges[name], self._values[name] = gauge, 0.0
            if self._gauges.get(name) is not gauge or not gauge and not value >= 0:
                if not self._refused:
                    self._log.warning("the metric %r is not counted; see Metrics for what a name and a value may be", name)
                self._refused = True
                return
            self._values[name] = value if gauge else self._values[name] + value
            self._changed.add(name)
            self._wake()

    def _wake(self):
        if self._timer is None and not self._closed:
            self._timer = threading.Timer(_REPORT_EVERY, self.flush)
            self._timer.daemon = True
            self._timer.start()

    def flush(self):
        """Reports what has changed. What could not be reported is reported with what comes next."""
        with self._turn:
            samples = self._take()
            if not samples:
                return
            try:
                self._report(samples)
            except HostFailed as e:
                self._log.log(logging.DEBUG, "reporting metrics: %s", e)
                self._give_back(samples)

    def _take(self):
        with self._lock:
            self._timer = None
            samples = []
            for name in self._changed:
                change = {"set" if self._gauges[name] else "add": self._values[name]}
                samples.append(wire.Sample(name=name, **change))
                if not self._gauges[name]:
                    self._values[name] = 0.0
            self._changed.clear()
            return samples

    def _give_back(self, samples):
        with self._lock:
            for s in samples:
                self._changed.add(s.name)
                if not self._gauges[s.name]:
                    self._values[s.name] += s.add
            self._wake()

    def close(self):
        """Reports for the last time."""
        with self._lock:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
        self.flush()
