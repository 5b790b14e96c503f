"""A plugin's configuration: its schema, from a dataclass or a dict, and its values."""
import dataclasses
import datetime
import ipaddress
import json
import re
import typing


class Problems(Exception):
    """What is wrong with a configuration: pairs of a path, such as ("senders", "0"), and a sentence."""

    def __init__(self, *problems):
        super().__init__("; ".join(".".join(p) + ": " + s for p, s in problems))
        self.problems = problems


class Secret(str):
    """A string that is not printed."""

    def __repr__(self):
        return "(secret)"


def setting(default=None, doc="", type="", one_of=()):
    """A field of a configuration. Its default is written as an operator would write it; without one it is required."""
    return dataclasses.field(default=default, metadata={"doc": doc, "type": type, "one_of": tuple(one_of), "setting": True})


_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SIZES = {"": 1, "B": 1, **{p + "B": 1000**i for i, p in enumerate("kMGT", 1)}, "KB": 1000, **{p + "iB": 1024**i for i, p in enumerate("KMGT", 1)}}


def _duration(value):
    parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d|w)", value)
    if not parts or "".join(n + u for n, u in parts) != value:
        raise ValueError("is no time such as 5m or 3d")
    return datetime.timedelta(seconds=sum(float(n) * _UNITS[u] for n, u in parts))


def _size(value):
    m = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", str(value))
    if not m or m[2] not in _SIZES:
        raise ValueError("is no size such as 35MiB")
    return int(m[1]) * _SIZES[m[2]]


def _exactly(*types):
    def check(value):
        if type(value) not in types:
            raise ValueError("has the wrong type")
        return value
    return check


def _text(parse):
    return lambda value: parse(_exactly(str)(value))


_PARSE = {
    "string": _text(str), "path": _text(str), "address": _text(str), "secret": _text(Secret),
    "bool": _exactly(bool), "int": _exactly(int), "float": lambda v: float(_exactly(int, float)(v)),
    "duration": _text(_duration), "size": lambda v: _size(_exactly(str, int)(v)), "cidr": _text(ipaddress.ip_network),
    "ip": _text(ipaddress.ip_address), "regex": _text(re.compile),
}
_ZERO = {"string": "", "path": "", "address": "", "secret": Secret(""), "bool": False, "int": 0, "float": 0.0, "size": 0}
_NAMES = {str: "string", bool: "bool", int: "int", float: "float", datetime.timedelta: "duration", Secret: "secret", re.Pattern: "regex"}


def schema_of(config):
    """The schema, as it travels, of a dataclass, of a dict that is one already, or of None."""
    if config is None or isinstance(config, dict):
        return config or {}
    hints = typing.get_type_hints(config)
    schema = {"attributes": [], "blocks": []}
    for f in dataclasses.fields(config):
        many = typing.get_origin(hints[f.name]) is list
        inner = typing.get_args(hints[f.name])[0] if many else hints[f.name]
        if dataclasses.is_dataclass(inner):
            schema["blocks"].append({"name": f.name, "doc": f.metadata.get("doc", ""), "schema": schema_of(inner), "many": many})
        else:
            schema["attributes"].append(_attribute(f, hints[f.name]))
    return schema


def _attribute(f, hint):
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    elem = args[-1] if origin in (list, dict) else hint
    kind = f.metadata.get("type") or _NAMES[elem]
    a = {"name": f.name, "type": {list: "list(%s)", dict: "map(%s)"}.get(origin, "%s") % kind, "doc": f.metadata.get("doc", "")}
    if f.metadata.get("one_of"):
        a["one_of"] = list(f.metadata["one_of"])
    if kind == "secret":
        a["secret"] = True
    if f.default is dataclasses.MISSING or f.metadata.get("setting") and f.default is None:
        a["required"] = True
    else:
        a["default"] = _written(f.default)
    return a


def _written(default):
    if isinstance(default, (list, tuple)):
        return " ".join(map(str, default))
    return str(default).lower() if isinstance(default, bool) else str(default)


def decode(config, data):
    """The configuration that JSON holds, as an instance of the dataclass or a dict; raises Problems."""
    try:
        values = json.loads(data or b"{}")
    except (ValueError, RecursionError) as e:
        raise Problems(((), "the configuration is no JSON: %s" % e)) from None
    problems = []
    out = _body(config, schema_of(config), values, (), problems)
    if problems:
        raise Problems(*problems)
    if hasattr(out, "check"):
        out.check()
    return out


def _body(config, schema, values, path, problems):
    if not isinstance(values, dict):
        problems.append((path, "is no block"))
        return None
    attributes = {a["name"]: a for a in schema.get("attributes", ())}
    blocks = {b["name"]: b for b in schema.get("blocks", ())}
    problems.extend((path + (name,), "there is no such setting") for name in values if name not in attributes and name not in blocks)
    out = {name: _value(a, values, path + (name,), problems) for name, a in attributes.items()}
    for name, b in blocks.items():
        out[name] = _block(_inner(config, name), b, values.get(name), path + (name,), problems)
    if dataclasses.is_dataclass(config) and not problems:
        return config(**out)
    return out


def _inner(config, name):
    if not dataclasses.is_dataclass(config):
        return None
    hint = typing.get_type_hints(config)[name]
    return typing.get_args(hint)[0] if typing.get_origin(hint) is list else hint


def _block(config, block, values, path, problems):
    if not block.get("many"):
        return _body(config, block["schema"], {} if values is None else values, path, problems)
    if not isinstance(values or [], list):
        values = [values]
    return [_body(config, block["schema"], v, path + (str(i),), problems) for i, v in enumerate(values or [])]


def _value(a, values, path, problems):
    shape, _, kind = a["type"].rpartition("(")
    kind = kind.rstrip(")")
    value = values.get(a["name"])
    if value is None:
        if a.get("required"):
            problems.append((path, "is missing"))
            return None
        return _default(a, shape, kind)
    if shape and not isinstance(value, {"list": list, "map": dict}[shape]):
        problems.append((path, "is no %s" % shape))
        return None
    if shape == "list":
        return [_scalar(a, kind, v, path + (str(i),), problems) for i, v in enumerate(value)]
    if shape == "map":
        return {k: _scalar(a, kind, v, path + (k,), problems) for k, v in value.items()}
    return _scalar(a, kind, value, path, problems)


def _scalar(a, kind, value, path, problems):
    try:
        parsed = _PARSE[kind](value)
    except (ValueError, re.error) as e:
        problems.append((path, "is no %s" % kind if kind == "secret" else str(e)))
        return None
    if a.get("one_of") and value not in a["one_of"]:
        problems.append((path, "is not one of " + ", ".join(a["one_of"])))
    return parsed


def _default(a, shape, kind):
    words = a.get("default", "")
    if shape == "map":
        return {}
    if shape == "list":
        return [_PARSE[kind](w) for w in words.split()]
    if not words:
        return _ZERO.get(kind)
    if kind in ("bool", "int", "float"):
        words = json.loads(words)
    return _PARSE[kind](words)
