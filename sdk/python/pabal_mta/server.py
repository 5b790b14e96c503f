"""A plugin's life: the handshake, the services of the contract, calls in batches, and the end."""
import concurrent.futures
import dataclasses
import heapq
import json
import logging
import os
import queue
import signal
import sys
import tempfile
import threading
import time

import grpc

from . import answers, config, files, wire
from . import host as hosts

_COOKIE = ("MTA_PLUGIN", "mta.plugin.v1")
_INLINE = 2 << 20  # of content in an answer
_CHUNK = 255 << 10
_THREADS = 64
_METHODS = {
    "authenticator": "authenticate", "store": "store", "directory": "lookup", "converter": "convert", "bounce": "bounce", "router": "route",
    "observer": "observe", "connect": "connect", "helo": "helo", "mail": "mail", "rcpt": "rcpt", "message": "message",
}
_log = logging.getLogger("plugin")


def _divert_stdout():
    """Keeps the standard output for the handshake; whatever else is printed goes to the standard error."""
    handshake = os.dup(1)
    os.set_inheritable(handshake, False)
    os.dup2(2, 1)
    return handshake


# When this module is imported the plugin's own code has hardly run: nothing is printed before the handshake.
_handshake = _divert_stdout() if os.environ.get(_COOKIE[0]) == _COOKIE[1] else None


@dataclasses.dataclass
class Plugin:
    name: str
    version: str
    doc: str
    new: type  # called once as new(config, host)
    config: object = None  # a dataclass, a schema as a dict, or None


class Context:
    """How long the server waits, and whether it still does."""

    def __init__(self, timeout_ms):
        self.deadline = time.monotonic() + timeout_ms / 1000 if timeout_ms else None
        self.cancelled = threading.Event()

    def remaining(self):
        """Seconds until the deadline, or None."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


class Content:
    """A message or body: bytes as they came over the wire."""

    def __init__(self, message, spool=None):
        self.size = message.size
        self._data, self._spool, self._lock = message.data, spool, threading.Lock()

    def read(self, limit=-1):
        """The first bytes, or all that came: with needs_prefix no more than that, and size tells of the whole."""
        if self._spool is None:
            return self._data if limit < 0 else self._data[:limit]
        with self._lock:
            self._spool.seek(0)
            return self._spool.read(limit)


class _Json(logging.Formatter):
    def format(self, record):
        words = record.getMessage()
        if record.exc_info:
            words += "\n" + self.formatException(record.exc_info)
        return json.dumps({"@level": record.levelname.lower(), "@message": words, "@module": record.name})


_MAX_PREFIX = 64 << 10


def _needs(new):
    """Says in a Kind how much of a message a plugin wants. What is narrowed is wanted all the same: a server that is older
    than the narrow wish must not send less."""
    fields, prefix = getattr(new, "needs_fields", ()), getattr(new, "needs_prefix", 0)
    if isinstance(fields, str) or not all(isinstance(name, str) and name for name in fields):
        raise TypeError("needs_fields is a list of names of header fields, such as [\"Subject\"], not %r" % (fields,))
    if not 0 <= prefix <= _MAX_PREFIX:
        raise ValueError("needs_prefix is a number of bytes up to %d, not %r; needs_body asks for all" % (_MAX_PREFIX, prefix))
    return {
        "header": bool(fields) or getattr(new, "needs_header", True), "header_names": list(fields),
        "body": prefix > 0 or getattr(new, "needs_body", True), "body_prefix": prefix,
    }


class _Service:
    def __init__(self, plugin):
        self.plugin, self.value, self.host, self.files = plugin, None, None, None
        self.idle = threading.Condition()
        self.running = 0
        self.drained, self.ended = threading.Event(), threading.Event()
        self.pool = concurrent.futures.ThreadPoolExecutor(_THREADS)

    def kinds(self):
        out = []
        for kind, method in _METHODS.items():
            if callable(getattr(self.plugin.new if self.value is None else self.value, method, None)):
                out.append(wire.Kind(name=kind, **(_needs(self.plugin.new) if kind == "message" else {})))
        return out

    def describe(self, _request, _context):
        p = self.plugin
        return wire.DescribeResponse(
            name=p.name, version=p.version, doc=p.doc, sdk="python/1", kinds=self.kinds(),
            schema_json=json.dumps(config.schema_of(p.config)).encode(), takes_descriptors=self.files is not None)

    def configure(self, request, context):
        if self.value is not None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the plugin has been configured already")
        try:
            values = config.decode(self.plugin.config, request.config_json)
            if not request.validate_only:
                self.host = hosts.Host(_log, request.state_dir, request.host_socket, request.host_token)
                self.value = self.plugin.new(values, self.host)
        except config.Problems as e:
            return wire.ConfigureResponse(diagnostics=[_diagnostic(path, words) for path, words in e.problems])
        except Exception as e:  # the operator reads why
            _log.exception("configuring")
            return wire.ConfigureResponse(diagnostics=[_diagnostic((), "%s: %s" % (type(e).__name__, e))])
        return wire.ConfigureResponse(kinds=self.kinds())

    def drain(self, request, _context):
        with self.idle:
            self.idle.wait_for(lambda: self.running == 0, request.timeout_ms / 1000)
            left = self.running
        self.close()
        return wire.DrainResponse(unfinished=left)

    def close(self):
        if self.drained.is_set():
            return
        self.drained.set()
        if callable(getattr(self.value, "close", None)):
            try:
                self.value.close()
            except Exception:
                _log.exception("closing")
        if self.host is not None:
            self.host.close()

    def calls(self, requests, _context):
        return _Stream(self, requests).responses()

    def large(self, frames, context):
        request = next(frames).request
        try:
            spool = self.content(request, frames)
        except OSError as e:
            yield wire.Frame(response=wire.Response(seq=request.seq, error=wire.Error(kind=wire.ERROR_KIND_NO_DESCRIPTOR, text=answers.text(e))))
            return
        with spool:
            ctx = Context(request.timeout_ms)
            context.add_callback(ctx.cancelled.set)
            response = self.answer(ctx, request, spool)
            chunks = _take_chunks(response)
            yield wire.Frame(response=response)
            for at in range(0, len(chunks), _CHUNK):
                yield wire.Frame(chunk=chunks[at:at + _CHUNK])

    def content(self, request, frames):
        """The content of a large call: a file that the server hands over, or what follows in chunks."""
        content = getattr(request, request.WhichOneof("call")).content
        if content.token:
            if self.files is None:
                raise OSError("this plugin takes no descriptors")
            return self.files.take(content)
        spool = tempfile.SpooledTemporaryFile(1 << 20)
        for frame in frames:
            spool.write(frame.chunk)
        return spool

    def answer(self, ctx, request, spool=None):
        """Makes one call. It always has an answer: what goes wrong is one."""
        with self.idle:
            self.running += 1
        token = hosts.current.set(ctx)
        try:
            response = self.dispatch(ctx, request, spool)
        except answers.BadLogin:
            response = _error(wire.ERROR_KIND_BAD_LOGIN, "")
        except answers.ReplyError as e:
            response = _error(wire.ERROR_KIND_REPLY, e, reply=e.reply)
        except (answers.Failed, OSError) as e:
            response = _error(wire.ERROR_KIND_FAILED, e)
        except Exception as e:
            _log.exception("a mistake in the plugin")
            response = _error(wire.ERROR_KIND_PANIC, "%s: %s" % (type(e).__name__, e))
        finally:
            hosts.current.reset(token)
            with self.idle:
                self.running -= 1
                self.idle.notify_all()
        if spool is None and response.ByteSize() > _INLINE + _CHUNK:
            response = _error(wire.ERROR_KIND_FAILED, "the answer is larger than a call can carry")
        response.seq = request.seq
        return response

    def dispatch(self, ctx, request, spool):
        kind = request.WhichOneof("call")
        method = getattr(self.value, _METHODS.get(kind, kind) if kind else "", None)
        if kind is None or not callable(method):
            return _error(wire.ERROR_KIND_UNSUPPORTED, "")
        c = getattr(request, kind)
        if kind == "authenticate":
            return wire.Response(identity=method(ctx, c))
        if kind == "lookup":
            return wire.Response(mailboxes=wire.Mailboxes(mailboxes=method(ctx, list(c.addresses))))
        if kind == "store":
            return wire.Response(replies=wire.Replies(replies=method(ctx, c, Content(c.content, spool))))
        if kind == "convert":
            return wire.Response(converted=method(ctx, c, Content(c.content, spool)) or wire.Converted())
        if kind == "bounce":
            return wire.Response(notice=method(ctx, c))
        if kind == "route":
            return wire.Response(hops=wire.Hops(hops=method(ctx, c)))
        if kind == "observe":
            method(ctx, list(c.events))
            return wire.Response(observed=wire.Observed())
        if kind == "rcpt":
            return wire.Response(verdict=method(ctx, c.session, c.recipient))
        if kind == "message":
            return wire.Response(verdict=method(ctx, c.session, c, Content(c.content, spool)))
        return wire.Response(verdict=method(ctx, c.session))


class _Stream:
    """One Calls stream. A call that is cancelled or out of time is answered at once, whatever its method still does."""

    def __init__(self, service, requests):
        self.service, self.requests = service, requests
        self.out = queue.SimpleQueue()
        self.lock = threading.Lock()
        self.open = {}  # contexts by their numbers
        self.deadlines = []
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        try:
            for batch in self.requests:
                for r in batch.requests:
                    self.begin(r)
                for seq in batch.cancel:
                    self.give_up(seq)
        except grpc.RpcError:
            pass  # the server has gone
        except Exception:
            _log.exception("reading calls")
        self.out.put(None)

    def begin(self, r):
        ctx = Context(r.timeout_ms)
        with self.lock:
            self.open[r.seq] = ctx
            if ctx.deadline is not None:
                heapq.heappush(self.deadlines, (ctx.deadline, r.seq))
        self.out.put(())  # there is a new deadline
        self.service.pool.submit(self.run, ctx, r)

    def run(self, ctx, r):
        if ctx.cancelled.is_set():
            return
        response = self.service.answer(ctx, r)
        with self.lock:
            if self.open.pop(r.seq, None) is None:
                return
        self.out.put(response)

    def give_up(self, seq):
        with self.lock:
            ctx = self.open.pop(seq, None)
        if ctx is not None:
            ctx.cancelled.set()
            response = _error(wire.ERROR_KIND_TIMEOUT, "")
            response.seq = seq
            self.out.put(response)

    def expire(self):
        """Gives up what is out of time, and returns how long it is until the next is."""
        while True:
            with self.lock:
                while self.deadlines and self.deadlines[0][1] not in self.open:
                    heapq.heappop(self.deadlines)
                if not self.deadlines:
                    return None
                deadline, seq = self.deadlines[0]
            if deadline > time.monotonic():
                return deadline - time.monotonic()
            self.give_up(seq)

    def responses(self):
        while True:
            batch, more = self.take(self.expire())
            if batch:
                yield wire.Responses(responses=batch)
            if not more:
                return

    def take(self, wait):
        """What waits to be answered, as much as fits into a frame, and whether there may be more after it."""
        batch, size = [], 0
        try:
            item = self.out.get(timeout=wait)
            while item is not None:
                if item != ():
                    batch.append(item)
                    size += item.ByteSize()
                if size > _INLINE or len(batch) == 256:
                    return batch, True
                item = self.out.get_nowait()
        except queue.Empty:
            return batch, True
        return batch, False


def _take_chunks(response):
    """Takes a content that is too large for a frame out of a response."""
    contents = [response.converted.content] if response.HasField("converted") else []
    contents += [e.replace_body for e in response.verdict.edits if e.WhichOneof("edit") == "replace_body"]
    for content in contents:
        if len(content.data) > _INLINE:
            data = content.data
            content.ClearField("data")
            content.streamed = True
            return data
    return b""


def _error(kind, words, reply=None):
    return wire.Response(error=wire.Error(kind=kind, text=answers.text(words)[:2000], reply=reply))


def _diagnostic(path, words):
    return wire.Diagnostic(severity=wire.SEVERITY_ERROR, path=[answers.text(p) for p in path], summary=answers.text(words))


def _handlers(s):
    def unary(f, request, response):
        return grpc.unary_unary_rpc_method_handler(f, request.FromString, response.SerializeToString)

    def stream(f, request, response):
        return grpc.stream_stream_rpc_method_handler(f, request.FromString, response.SerializeToString)

    def raw(f):
        return grpc.unary_unary_rpc_method_handler(f)  # bytes in, bytes out

    def stdio(_request, _context):
        s.ended.wait()
        return iter(())

    def shutdown(_request, _context):
        s.ended.set()
        return b""

    serving = b"\x08\x01"  # HealthCheckResponse{status: SERVING}
    services = {
        "mta.plugin.v1.Plugin": {
            "Describe": unary(s.describe, wire.DescribeRequest, wire.DescribeResponse),
            "Configure": unary(s.configure, wire.ConfigureRequest, wire.ConfigureResponse),
            "Drain": unary(s.drain, wire.DrainRequest, wire.DrainResponse),
            "Calls": stream(s.calls, wire.Requests, wire.Responses),
            "Large": stream(s.large, wire.Frame, wire.Frame),
        },
        "grpc.health.v1.Health": {"Check": raw(lambda _request, _context: serving)},
        "plugin.GRPCController": {"Shutdown": raw(shutdown)},
        "plugin.GRPCStdio": {"StreamStdio": grpc.unary_stream_rpc_method_handler(stdio)},
    }
    return [grpc.method_handlers_generic_handler(name, methods) for name, methods in services.items()]


def _follow_lifeline(s):
    """Ends the process when the server has died. Without a lifeline it was started by hand, and False is returned."""
    fd = int(os.environ.pop("MTA_LIFELINE", "-1"))
    if fd < 0:
        return False
    os.set_inheritable(fd, False)

    def follow():
        while os.read(fd, 4096):
            pass
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    return True


def serve(plugin):
    """Runs a plugin until the server ends it, and does not return."""
    if _handshake is None:
        sys.exit("%s %s: %s\n\nThis program is a plugin of the Pabal mail server, which starts it.\n"
                 "  mta plugin check %s     proves that it works" % (plugin.name, plugin.version, plugin.doc, sys.argv[0]))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    s = _Service(plugin)
    led = _follow_lifeline(s)
    s.files = files.taker()
    for sig in (signal.SIGTERM, signal.SIGINT):  # a service manager sends them to the whole group
        signal.signal(sig, lambda *_: (s.drained.is_set() or not led) and os._exit(0 if led else 1))
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2 * _THREADS), options=[
        ("grpc.max_receive_message_length", 16 << 20), ("grpc.max_send_message_length", 8 << 20),
    ])
    server.add_generic_rpc_handlers(_handlers(s))
    path = os.path.join(os.environ.get("PLUGIN_UNIX_SOCKET_DIR") or tempfile.mkdtemp(), "plugin-%d" % os.getpid())
    server.add_insecure_port("unix:" + path)
    server.start()
    os.write(_handshake, ("1|1|unix|%s|grpc|\n" % path).encode())
    os.close(_handshake)
    while not s.ended.wait(1):  # a thread that waits for ever runs no signal handlers
        pass
    server.stop(0.5).wait()
    os._exit(0)
