"""What the author of a plugin for the Pabal mail server imports.

A plugin is a class with methods of one or more kinds; having a method is subscribing to it. It runs in a process of its
own, which the server starts, watches and restarts:

    import dataclasses
    import pabal_mta as mta

    @dataclasses.dataclass
    class Config:
        trap: str = mta.setting(default="spamtrap", doc="the local part that takes no mail")

    class Trap:
        def __init__(self, config, host):
            self.config = config

        def rcpt(self, ctx, session, recipient):
            if recipient.address.startswith(self.config.trap + "@"):
                return mta.reject(550, "5.7.1", "nobody reads that")
            return mta.proceed()

    mta.serve(mta.Plugin("trap", "0.1.0", "refuses mail to the spam trap", Trap, Config))

The methods, each with a Context that knows the deadline, and what they return:

    authenticate(ctx, login)           Identity(user=...), or raise BadLogin
    store(ctx, delivery, content)      a list with one reply(...) for each delivery.to
    lookup(ctx, addresses)             a list of exists(), unknown(), full() or alias([...])
    convert(ctx, conversion, content)  None when nothing has to change, or converted(bytes, body)
    bounce(ctx, failure)               notice_default(), notice(subject, text) or notice_suppress()
    route(ctx, routing)                a list with one hop, hop_mx, hop_route or hop_reply for each routing.envelope.to
    observe(ctx, events)               nothing; an exception has the same events told again
    connect, helo, mail(ctx, session)  a verdict: proceed, accept, reject, tempfail, discard, quarantine
    rcpt(ctx, session, recipient)      a verdict
    message(ctx, session, message, content)   a verdict; class attributes ask for less: needs_header, needs_body = False,
                                       needs_fields = ["Subject"] for some fields, needs_prefix = 4096 for the first bytes

The host that a plugin is made with is what the server does for it; help(pabal_mta.host) tells of each:

    host.log, host.state_dir           the server's log; a folder that is the plugin's own and outlives it
    host.kv                            get(key), set(key, value, ttl), delete(key), incr(key, by, ttl), compare_and_set
    host.submit(content, to, sender)   a new message into the queue; its ID
    host.authenticate(login)           Identity, or BadLogin
    host.resolver                      mx(domain), addresses(host), txt(name)
    host.metrics                       count(name, n), gauge(name, value): figures at /metrics

What the host does not do is HostFailed, or its subclass LimitBroken, Exhausted, NotProvided or NotFound.

Session, Login and so on are the messages of plugin.proto. A method that raises Failed or OSError could not do its work; a
ReplyError is the answer that the peer gets; any other exception is taken for a mistake in the plugin. Either way the
server answers with a temporary failure, and the plugin lives on. Methods are called from many threads at once.
"""
from .answers import *  # noqa: F401,F403
from .config import Problems, Secret, decode, schema_of, setting  # noqa: F401
from .host import Exhausted, Host, HostFailed, LimitBroken, NotFound, NotProvided  # noqa: F401
from .server import Context, Plugin, serve  # noqa: F401
from .wire import *  # noqa: F401,F403
