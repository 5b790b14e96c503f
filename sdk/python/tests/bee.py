"""A plugin for the tests in Go: it asks everything of its host, and says what it was told."""
import datetime
import os
import threading

import pabal_mta as mta

TO = ["ann@example.test"]


class Bee:
    def __init__(self, config, host):
        self.host, self.lock, self.asked = host, threading.Lock(), False

    def rcpt(self, ctx, session, recipient):
        """Does what the local part names, and says what came of it."""
        return mta.reject(550, "5.0.0", self.tell(recipient.address.partition("@")[0]))

    def observe(self, ctx, events):
        with self.lock:
            first, self.asked = not self.asked, True
        for event in events:
            self.write("%s %s %s" % (event.name, event.to, getattr(event, "class")))
        if first and self.host.kv.compare_and_set("asked", None, b"yes"):
            for word in ["login", "stranger", "once", "incr", "submit", "nobody", "lines", "mx", "txt", "figures"]:
                self.write("%s: %s" % (word, self.tell(word)))
        if first:
            self.write("asked: %s" % self.host.kv.get("asked"))

    def write(self, line):
        with self.lock, open(os.path.join(self.host.state_dir, "heard"), "a") as f:
            f.write(line + "\n")

    def tell(self, word):
        try:
            return str(getattr(self, "do_" + word)())
        except mta.ReplyError as e:
            return "%d %s" % (e.reply.code, e.reply.enhanced)
        except (mta.BadLogin, mta.HostFailed) as e:
            return type(e).__name__

    def do_login(self):
        return self.host.authenticate(mta.Login(user=b"ann@example.test", password=b"correct horse battery", mechanism="PLAIN")).user

    def do_stranger(self):
        return self.host.authenticate(mta.Login(user=b"ann@example.test", password=b"\xff", mechanism="PLAIN"))

    def do_once(self):
        kv = self.host.kv
        return [kv.compare_and_set("once", None, b""), kv.compare_and_set("once", None, b"x"), kv.compare_and_set("once", b"", "y"),
                kv.get("once"), kv.compare_and_set("once", "y", None), kv.get("once")]

    def do_incr(self):
        kv = self.host.kv
        kv.set(b"\xff", "text", ttl=3600)
        sums = [kv.incr("n"), kv.incr("n", 41, ttl=datetime.timedelta(hours=1)), kv.incr("n", -2), kv.get("n"), kv.get(b"\xff")]
        kv.delete("n")
        return sums + [kv.get("n")]

    def do_ttl(self):
        """What lives for less than a millisecond does not live for ever."""
        self.host.kv.set("short", b"x", ttl=0.0000001)
        for _ in range(3000):
            if self.host.kv.get("short") is None:
                return "gone"
        return "still there"

    def do_number(self):
        self.host.kv.set("word", "x")
        return self.host.kv.incr("word")

    def do_key(self):
        return self.host.kv.get(b"k" * 513)

    def do_negative(self):
        return self.host.kv.set("k", b"", ttl=-1)

    def do_submit(self):
        return bool(self.host.submit("Subject: 안녕\r\n\r\nbuzz\r\n", TO))

    def do_large(self):
        recipient = mta.Recipient(address="bob@example.test", notify=[mta.NOTIFY_NEVER])
        return self.host.submit(b"Subject: x\r\n\r\n" + b"0123456789\r\n" * 90000, [recipient], "bee@example.test", mta.Envelope(envid="7"))

    def do_oversize(self):
        return self.host.submit(b"x" * ((8 << 20) + 1), TO)

    def do_nobody(self):
        return self.host.submit(b"Subject: x\r\n\r\n", ["nobody@example.test"])

    def do_lines(self):
        return self.host.submit(b"Subject: x\n\n.\n", TO)

    def do_mx(self):
        return [(mx.host, mx.preference) for mx in self.host.resolver.mx("friend.example")]

    def do_addresses(self):
        return self.host.resolver.addresses("mx.friend.example")

    def do_txt(self):
        return self.host.resolver.txt("friend.example")

    def do_nowhere(self):
        return self.host.resolver.mx("nowhere.example")

    def do_figures(self):
        m = self.host.metrics
        m.count("made_total"), m.count("made_total", 2), m.gauge("depth", -3), m.gauge("depth", 7)
        m.count("Wrong"), m.count("made_total", -1), m.gauge("made_total", 1)

    def close(self):
        self.host.metrics.count("closed_total")


mta.serve(mta.Plugin("bee", "1", "is busy", Bee))
