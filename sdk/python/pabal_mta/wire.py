"""The messages of plugin.proto as classes, made at run time from its descriptor."""
import pkgutil

from google.protobuf import descriptor_pool, message_factory

_pool = descriptor_pool.DescriptorPool()
_pool.AddSerializedFile(pkgutil.get_data(__package__, "plugin.binpb"))
_file = _pool.FindFileByName("plugin.proto")


def _classes():
    make = getattr(message_factory, "GetMessageClass", None) or message_factory.MessageFactory(_pool).GetPrototype
    return {name: make(d) for name, d in _file.message_types_by_name.items()}


def _constants():
    return {v.name: v.number for e in _file.enum_types_by_name.values() for v in e.values}


_names = {**_classes(), **_constants()}
globals().update(_names)
__all__ = list(_names)
