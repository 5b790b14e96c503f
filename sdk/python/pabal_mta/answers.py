"""What methods return and raise."""
from . import wire

__all__ = [
    "Failed", "BadLogin", "ReplyError", "reply", "proceed", "accept", "reject", "tempfail", "discard", "quarantine",
    "disconnect", "add_header", "replace_header", "remove_header", "set_sender", "add_recipient", "drop_recipient",
    "rewrite_recipient", "replace_body", "set_meta", "exists", "unknown", "full", "alias", "converted", "notice",
    "notice_default", "notice_suppress", "hop", "hop_mx", "hop_route", "hop_reply", "text",
]


class Failed(Exception):
    """The plugin could not do its work; the text is for the operator."""


class BadLogin(Exception):
    """Account and password do not belong together."""


class ReplyError(Exception):
    """The answer of the call is this SMTP reply."""

    def __init__(self, code, enhanced, message):
        super().__init__(message)
        self.reply = reply(code, enhanced, message)


def text(value):
    """Makes a string that protobuf can carry."""
    return str(value).encode("utf-8", "replace").decode("utf-8")


def _bytes(value):
    return value.encode("utf-8") if isinstance(value, str) else bytes(value)


def reply(code, enhanced, message):
    return wire.Reply(code=code, enhanced=enhanced, text=text(message))


def _verdict(action, edits=(), reason="", answer=None):
    return wire.Verdict(action=action, edits=list(edits), reason=text(reason), reply=answer)


def proceed(*edits):
    """No objection: the next step is asked."""
    return _verdict(wire.ACTION_CONTINUE, edits)


def accept(*edits):
    """Accepted: the rest of this stage is skipped."""
    return _verdict(wire.ACTION_ACCEPT, edits)


def reject(code, enhanced, message):
    """Refused for good: 5xx."""
    return _verdict(wire.ACTION_REJECT, answer=reply(code, enhanced, message))


def tempfail(code, enhanced, message):
    """Refused for now: 4xx."""
    return _verdict(wire.ACTION_TEMPFAIL, answer=reply(code, enhanced, message))


def disconnect(enhanced, message):
    """421, and the connection is closed."""
    return _verdict(wire.ACTION_DISCONNECT, answer=reply(421, enhanced, message))


def discard(reason):
    """Accepted with 250 and thrown away."""
    return _verdict(wire.ACTION_DISCARD, reason=reason)


def quarantine(reason, *edits):
    """Accepted and held in the queue for an operator."""
    return _verdict(wire.ACTION_QUARANTINE, edits, reason)


def add_header(name, value, bottom=False):
    """The value stands after the colon as it is, so it begins with a space."""
    return wire.Edit(add_header=wire.AddHeader(name=name, value=_bytes(value), bottom=bottom))


def replace_header(field_id, value):
    return wire.Edit(replace_header=wire.ReplaceHeader(id=field_id, value=_bytes(value)))


def remove_header(field_id):
    return wire.Edit(remove_header=wire.RemoveHeader(id=field_id))


def set_sender(address):
    return wire.Edit(set_sender=address)


def add_recipient(address):
    return wire.Edit(add_recipient=wire.Recipient(address=address))


def drop_recipient(address):
    return wire.Edit(drop_recipient=address)


def rewrite_recipient(old, new):
    return wire.Edit(rewrite_recipient=wire.RewriteRecipient(old=old, new=new))


def replace_body(body):
    """Lines end in CRLF."""
    return wire.Edit(replace_body=wire.Content(size=len(body), data=body))


def set_meta(key, value):
    return wire.Edit(set_meta=wire.SetMeta(key=key, value=value))


def exists():
    return wire.Mailbox(state=wire.MAILBOX_STATE_EXISTS)


def unknown():
    return wire.Mailbox(state=wire.MAILBOX_STATE_UNKNOWN)


def full():
    return wire.Mailbox(state=wire.MAILBOX_STATE_FULL)


def alias(addresses):
    return wire.Mailbox(state=wire.MAILBOX_STATE_ALIAS, aliases=addresses)


def converted(data, body):
    """The message in its new form; body is BODY_TYPE_7BIT, BODY_TYPE_8BITMIME or BODY_TYPE_BINARYMIME."""
    return wire.Converted(content=wire.Content(size=len(data), data=data), body=body)


def hop(*hosts):
    """The next host of a recipient: "host:port" or "host"; of several the first that answers."""
    return wire.Hop(hosts=hosts)


def hop_mx():
    """The hosts that the recipient's domain names."""
    return wire.Hop(mx=True)


def hop_route(name):
    """The way of a route of mta.hcl, with its TLS and its password."""
    return wire.Hop(route=name)


def hop_reply(code, enhanced, message):
    """The recipient can't be delivered to: 5xx, or 4xx for now."""
    return wire.Hop(reply=reply(code, enhanced, message))


def notice_default():
    return wire.Notice(action=wire.NOTICE_ACTION_DEFAULT)


def notice_suppress():
    return wire.Notice(action=wire.NOTICE_ACTION_SUPPRESS)


def notice(subject, words, language="", to=""):
    return wire.Notice(action=wire.NOTICE_ACTION_RENDER, subject=text(subject), text=text(words), language=language, to=to)
