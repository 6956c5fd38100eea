"""Checks a JSON value against a client library's own request types, strictly: a key that the type does not
know is a fault, and what the library takes as an iterable must be a list."""

import collections.abc
import types
import typing

import typing_extensions

REQUIRED = {typing_extensions.Required, typing.Required}
NOT_REQUIRED = {typing_extensions.NotRequired, typing.NotRequired}
WRAPPERS = REQUIRED | NOT_REQUIRED
LISTS = {collections.abc.Iterable, collections.abc.Sequence, list}
MAPS = {dict, collections.abc.Mapping}


def faults(value, kind, path: str = "$") -> list[str]:
    """What is wrong with `value` as a `kind`; nothing if it is right."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated or origin in WRAPPERS:
        return faults(value, arguments[0], path)
    if isinstance(kind, typing.TypeAliasType if hasattr(typing, "TypeAliasType") else ()):
        return faults(value, kind.__value__, path)
    if origin in (typing.Union, types.UnionType):
        return union_faults(value, arguments, path)
    if origin is typing.Literal:
        return [] if value in arguments else [f"{path}: {value!r} is none of {arguments}"]
    if typing_extensions.is_typeddict(kind):
        return dict_faults(value, kind, path)
    if origin in LISTS or "SequenceNotStr" in str(origin):
        if not isinstance(value, list):
            return [f"{path}: not a list"]
        return [fault for i, item in enumerate(value) for fault in faults(item, arguments[0], f"{path}[{i}]")]
    if origin in MAPS:
        if not isinstance(value, dict):
            return [f"{path}: not an object"]
        return [fault for name, item in value.items() for fault in faults(item, arguments[1], f"{path}.{name}")]
    return plain_faults(value, kind, path)


def union_faults(value, kinds, path: str) -> list[str]:
    """The faults of the branch that fits furthest, for that one was meant."""
    tried = [faults(value, kind, path) for kind in kinds]
    return min(tried, key=lambda found: (-depth(found), len(found))) if all(tried) else []


def depth(found: list[str]) -> int:
    paths = [fault.split(": ")[0] for fault in found]
    return max(path.count(".") + path.count("[") for path in paths)


def dict_faults(value, kind, path: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{path}: not an object"]
    hints = typing_extensions.get_type_hints(kind, include_extras=True)
    found = [f"{path}.{name}: not in {kind.__name__}" for name in value.keys() - hints.keys()]
    found += [f"{path}.{name}: missing in {kind.__name__}" for name in required(kind, hints) - value.keys()]
    for name in value.keys() & hints.keys():
        found += faults(value[name], hints[name], f"{path}.{name}")
    return found


def required(kind, hints: dict) -> set[str]:
    """The keys that must be there; `__required_keys__` alone misses those that were annotated as text."""
    said = {name for name, hint in hints.items() if typing.get_origin(hint) in REQUIRED}
    unsaid = {name for name in kind.__required_keys__ if typing.get_origin(hints[name]) not in NOT_REQUIRED}
    return said | unsaid


def plain_faults(value, kind, path: str) -> list[str]:
    if kind in (object, typing.Any):
        return []
    if kind is None or kind is type(None):
        return [] if value is None else [f"{path}: not null"]
    if kind is float:
        return [] if isinstance(value, int | float) and not isinstance(value, bool) else [f"{path}: not a number"]
    if kind is int:
        return [] if isinstance(value, int) and not isinstance(value, bool) else [f"{path}: not an integer"]
    if isinstance(kind, type) and kind in (str, bool):
        return [] if isinstance(value, kind) else [f"{path}: not a {kind.__name__}"]
    # What the library takes as an object of its own (a model it gave out, a file) is no JSON.
    return [f"{path}: no JSON is a {kind}"]
