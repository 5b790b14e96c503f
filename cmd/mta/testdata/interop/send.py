"""send.py HOST:PORT CERTIFICATE USER PASSWORD FILE RECIPIENT

Sends a message in HTML with an inline picture and an attachment, both FILE, over STARTTLS, and prints what content.py
must see in it.
"""

import base64
import smtplib
import ssl
import subprocess
import sys
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from pathlib import Path

server, certificate, user, password, name, recipient = sys.argv[1:]
picture = Path(name).read_bytes()

message = EmailMessage(policy=SMTP if user.isascii() else SMTPUTF8)
message["From"] = user
message["To"] = recipient
message["Subject"] = "안녕하세요, 파발입니다"
message.set_content("본문입니다.\n.\n끝.\n")
message.add_alternative("<p>본문<img src='cid:picture@interop'></p>\n", subtype="html")
message.get_payload()[1].add_related(picture, "image", "png", cid="<picture@interop>")
message.add_attachment(picture, "application", "octet-stream", filename="한글 이름.bin")
message.add_attachment(picture, "image", "png", filename="picture.png")

with smtplib.SMTP("localhost", int(server.rpartition(":")[2]), timeout=20) as connection:
    connection.starttls(context=ssl.create_default_context(cafile=certificate))
    if user.isascii():
        connection.login(user, password)
    else:  # login takes ASCII only
        connection.ehlo()
        plain = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        code, answer = connection.docmd("AUTH", "PLAIN " + plain)
        assert code == 235, answer
    connection.send_message(message)

content = Path(__file__).with_name("content.py")
shown = subprocess.run([sys.executable, content], input=message.as_bytes(), stdout=subprocess.PIPE, check=True)
sys.stdout.buffer.write(shown.stdout)
