"""lmtp.py SOCKET SENDER RECIPIENT: hands the message on standard input to an LMTP server.

One recipient, since smtplib does not read the answer for a second one.
"""

import smtplib
import sys

socket, sender, recipient = sys.argv[1:]
with smtplib.LMTP(socket) as connection:
    connection.ehlo()
    message = sys.stdin.buffer.read().replace(b"\n", b"\r\n")
    connection.sendmail(sender, [recipient], message, mail_options=["BODY=8BITMIME"])
