"""imap.py HOST:PORT USER PASSWORD COUNT FOLDER

Reads a mailbox of COUNT messages, prints "ready", waits until one more arrives, and writes all into FOLDER.
"""

import imaplib
import sys
import time
from pathlib import Path

server, user, password, count, folder = sys.argv[1:]
host, _, port = server.rpartition(":")
count = int(count)


def must(answer):
    status, data = answer
    assert status == "OK", answer
    return data


with imaplib.IMAP4(host, int(port), timeout=20) as connection:
    must(connection.login(user, password))
    assert int(must(connection.select("INBOX"))[0]) == count
    must(connection.store("2", "+FLAGS", r"(\Seen \Flagged)"))
    print("ready", flush=True)
    end = time.monotonic() + 20
    while True:
        must(connection.noop())
        exists = connection.response("EXISTS")[1]
        if exists and exists[-1] and int(exists[-1]) == count + 1:
            break
        assert time.monotonic() < end, "the new message does not appear"
        time.sleep(0.05)
    for i in range(1, count + 2):
        told, text = must(connection.fetch(str(i), "(RFC822.SIZE BODY.PEEK[])"))[0]
        assert f"RFC822.SIZE {len(text)} ".encode() in told, told
        Path(folder, str(i)).write_bytes(text)
