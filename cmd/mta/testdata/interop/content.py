"""Prints what a mail program sees in the message on standard input: its subject, and a line for each part."""

import email
import email.policy
import hashlib
import sys

message = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.default)
sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
print("subject:", message["Subject"])
for part in message.walk():
    if part.is_multipart():
        print(part.get_content_type())
        continue
    payload = part.get_payload(decode=True)
    if part.get_content_maintype() == "text":
        payload = payload.replace(b"\r\n", b"\n")
    print(part.get_content_type(), part.get_filename(), part["Content-ID"], len(payload),
          hashlib.sha256(payload).hexdigest())
