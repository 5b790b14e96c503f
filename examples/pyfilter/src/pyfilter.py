"""Pyfilter refuses attachments by their names, and tags the subject of mail from outside.

In mta.hcl:

    plugin "pyfilter" {
      source = "/usr/lib/mta/plugins/pyfilter.pyz"
      config {
        refuse       = ["exe", "scr", "js"]
        external_tag = "[external]"
      }
    }

    pipeline "inbound" {
      on "message" { use = [plugin.pyfilter] }
    }
"""
import dataclasses
import email.errors
import email.header
import email.parser
import email.utils

import pabal_mta as mta


@dataclasses.dataclass
class Config:
    refuse: list[str] = mta.setting(default="exe scr js", doc="file name extensions that are refused, without the dot")
    external_tag: str = mta.setting(default="", doc="put before the subject of mail from outside")

    def check(self):
        if any(ord(c) < 32 or ord(c) == 127 for c in self.external_tag):
            raise mta.Problems((("external_tag",), "holds a control character"))


class Pyfilter:
    """The filter."""

    def __init__(self, config, host):
        self.config, self.host = config, host
        self.endings = tuple("." + e.lower().lstrip(".") for e in config.refuse)

    def message(self, ctx, session, message, content):
        if self.endings:
            try:
                name = self.refused(content.read())
            except RecursionError:
                return mta.reject(554, "5.6.0", "the parts of this message are nested too deep")
            if name is not None:
                self.host.log.info("refused %r in a message from %r", name, getattr(session, "from"))
                return mta.reject(552, "5.7.0", "attachments of this kind are not taken")
        return mta.proceed(*self.tag(session, message.header))

    def refused(self, data):
        """The first file name that is refused, or None. What is no proper MIME is not looked at: it can't be opened either."""
        for part in email.parser.BytesParser().parsebytes(data).walk():
            for name in file_names(part):
                if name.lower().rstrip(". ").endswith(self.endings):
                    return name
        return None

    def tag(self, session, header):
        """The edit that puts the tag before the subject."""
        tag = self.config.external_tag.encode()
        if not tag or session.user:
            return []
        for field in header:
            if field.name.lower() == "subject":
                old = field.value.lstrip(b" \t")
                return [] if old.startswith(tag) else [mta.replace_header(field.id, b" " + tag + b" " + old)]
        return [mta.add_header("Subject", b" " + tag, bottom=True)]


def file_names(part):
    """The names that a part goes by, with RFC 2231 and RFC 2047 undone."""
    for field, param in (("content-disposition", "filename"), ("content-type", "name")):
        try:
            value = part.get_param(param, header=field)
            name = email.utils.collapse_rfc2231_value(value) if value else ""
            yield str(email.header.make_header(email.header.decode_header(name)))
        except (ValueError, LookupError, TypeError, email.errors.MessageError):
            continue  # it has no name that a mail program could make out


def main():
    mta.serve(mta.Plugin("pyfilter", "0.1.0", "refuses attachments and tags subjects", Pyfilter, Config))
