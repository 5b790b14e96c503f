"""autoconfig.py URL ADDRESS PASSWORD CERTIFICATE

Sets up mail as Thunderbird does: reads the settings at URL, and logs in at every server that they name, in the way that
they name. Prints what it has tried, one a line.
"""

import imaplib
import poplib
import smtplib
import ssl
import sys
import urllib.parse
import urllib.request
import xml.etree.ElementTree as xml

url, address, password, certificate = sys.argv[1:]
with urllib.request.urlopen(url + "?emailaddress=" + urllib.parse.quote(address), timeout=20) as answer:
    root = xml.fromstring(answer.read())
assert root.tag == "clientConfig" and root.get("version") == "1.1", root
provider = root.find("emailProvider")
assert address.rpartition("@")[2] in [d.text for d in provider.findall("domain")]
context = ssl.create_default_context(cafile=certificate)
for server in provider.findall("incomingServer") + provider.findall("outgoingServer"):
    kind = server.get("type")
    host, port, socket, name, auth = (server.findtext(t) for t in ("hostname", "port", "socketType", "username", "authentication"))
    assert auth == "password-cleartext", auth
    user = name.replace("%EMAILADDRESS%", address)
    if kind == "imap":
        c = imaplib.IMAP4_SSL(host, int(port), ssl_context=context, timeout=20) if socket == "SSL" else imaplib.IMAP4(host, int(port), timeout=20)
        if socket == "STARTTLS":
            c.starttls(context)
        assert c.login(user, password)[0] == "OK"
        c.logout()
    elif kind == "pop3":
        c = poplib.POP3_SSL(host, int(port), context=context, timeout=20) if socket == "SSL" else poplib.POP3(host, int(port), timeout=20)
        if socket == "STARTTLS":
            c.stls(context)
        c.user(user)
        c.pass_(password)
        c.quit()
    else:
        c = smtplib.SMTP_SSL(host, int(port), context=context, timeout=20) if socket == "SSL" else smtplib.SMTP(host, int(port), timeout=20)
        if socket == "STARTTLS":
            c.starttls(context=context)
        c.login(user, password)
        c.quit()
    print(kind, socket)
