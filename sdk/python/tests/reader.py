"""A plugin for the tests in Go: it says of each message what it has read, how it came, and how many files it has open."""
import hashlib
import os

import pabal_mta as mta


class Reader:
    def __init__(self, config, host):
        pass

    def message(self, ctx, session, message, content):
        text = content.read()
        came = "as a file" if type(content._spool).__name__ == "Spliced" else "in chunks" if content._spool else "inline"
        assert content.read(100) == text[:100] and len(text) == content.size
        body = text.partition(b"\r\n\r\n")[2]
        return mta.accept(mta.add_header("X-Read", "%s, %s" % (came, hashlib.sha256(body).hexdigest())),
                          mta.add_header("X-Open", "%d" % len(os.listdir("/proc/self/fd"))))


mta.serve(mta.Plugin("reader", "1", "reads", Reader))
