"""Compares a document with the struct of its kind, and returns all fields of a wrong type with their paths.

The structs of `rulegen.kube.objects.structs` are the only schema.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from msgspec import inspect

from rulegen.errors import Fault
from rulegen.text import described, described_type, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from msgspec import Struct

MAX_FAULTS: Final = 50

_NAMES: Final[dict[type[inspect.Type], str]] = {
    inspect.IntType: "an integer",
    inspect.StrType: "a text",
    inspect.BoolType: "true or false",
    inspect.VarTupleType: "a list",
    inspect.DictType: "an object",
    inspect.StructType: "an object",
}


@functools.cache
def _shape_of(struct: type[Struct]) -> inspect.Type:
    return inspect.type_info(struct)


def shape_faults(value: Any, struct: type[Struct], *, confidential: bool = False) -> tuple[Fault, ...]:
    """Return all type faults of a document in the order of the struct's fields, at most `MAX_FAULTS`.

    Args:
        value: Mappings, lists and scalars, without null fields.
        struct: The expected struct.
        confidential: Whether messages must not contain values.
    """
    faults: list[Fault] = []
    for fault in _faults(value, _shape_of(struct), "", described_type if confidential else described):
        if len(faults) == MAX_FAULTS:
            faults.append(Fault("", f"more than {MAX_FAULTS} faults; the others are not shown"))
            break
        faults.append(fault)
    return tuple(faults)


def _faults(value: Any, shape: inspect.Type, path: str, say: Callable[[Any], str]) -> Iterator[Fault]:
    match shape:
        case inspect.StructType() if isinstance(value, dict):
            for field in shape.fields:
                inner = f"{path}.{field.encode_name}" if path else field.encode_name
                if field.encode_name in value:
                    yield from _faults(value[field.encode_name], field.type, inner, say)
                elif field.required:
                    yield Fault(inner, "missing")
        case inspect.VarTupleType() if isinstance(value, list):
            for index, item in enumerate(value):
                yield from _faults(item, shape.item_type, f"{path}[{index}]", say)
        case inspect.DictType() if isinstance(value, dict):
            for key, item in value.items():
                yield from _faults(item, shape.value_type, f"{path}.{printable(key)}", say)
        case inspect.UnionType():
            if not any(_fits(value, member) for member in shape.types):
                yield from _misfit(value, shape, path, say)
        case _ if not _fits(value, shape):
            yield Fault(path, f"expected {_expected(shape)}, got {say(value)}")


def _misfit(value: Any, shape: inspect.UnionType, path: str, say: Callable[[Any], str]) -> Iterator[Fault]:
    """Yield the faults of a union: for an optional field, those of its type; for any other union, one fault."""
    real = [member for member in shape.types if not isinstance(member, inspect.NoneType)]
    if len(real) == 1:
        yield from _faults(value, real[0], path, say)
    else:
        yield Fault(path, f"expected {_expected(shape)}, got {say(value)}")


def _fits(value: Any, shape: inspect.Type) -> bool:
    """Return whether a value has the type; False for collections, so that their fields and items are checked."""
    match shape:
        case inspect.IntType():
            return isinstance(value, int) and not isinstance(value, bool)
        case inspect.StrType():
            return isinstance(value, str)
        case inspect.BoolType():
            return isinstance(value, bool)
        case inspect.NoneType():
            return value is None
        case inspect.UnionType():
            return any(_fits(value, member) for member in shape.types)
        case _:
            return False


def _expected(shape: inspect.Type) -> str:
    if isinstance(shape, inspect.UnionType):
        return " or ".join(_expected(member) for member in shape.types if not isinstance(member, inspect.NoneType))
    return _NAMES.get(type(shape), "something else")
