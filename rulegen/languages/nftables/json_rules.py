"""Statements and expressions in the JSON of nft (libnftables-json(5))."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from rulegen.errors import InputError
from rulegen.languages.nftables import canonical
from rulegen.languages.nftables.expressions import (
    AnonymousMap,
    Bitwise,
    Concat,
    Ct,
    Expression,
    Fib,
    Literal,
    MapLookup,
    Meta,
    Numgen,
    Payload,
    SetReference,
    VerdictCode,
)
from rulegen.languages.nftables.statements import (
    Assign,
    Compare,
    CountPackets,
    Dnat,
    MasqueradeSource,
    NftRule,
    NftStatement,
    OtherStatement,
    RejectPacket,
    UpdateSet,
    VerdictLookup,
)
from rulegen.languages.nftables.text_rules import text_rule
from rulegen.languages.nftables.text_tokens import words_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_BITWISE: Final = frozenset({"&", "|", "^"})
_OPERATORS: Final = frozenset({"==", "!=", "<", ">", "<=", ">=", "in"})
_PLAIN_VERDICTS: Final = frozenset({"accept", "drop", "return", "continue"})
_JUMPS: Final = frozenset({"jump", "goto"})
_DEFAULT_REJECTS: Final = frozenset({"icmp port-unreachable", "icmpv6 port-unreachable", "icmpx port-unreachable"})


def json_rule(statements: list[Any], why: str = "") -> NftRule:
    """Return the rule that has these statements; one that rulegen never writes is kept as text."""
    return NftRule(tuple(each for value in statements for each in _statements(value)), why)


def json_verdict(value: Any) -> VerdictCode:
    """Return a verdict.

    Raises:
        ValueError: It is none.
    """
    name, content = _only(value)
    if name in _PLAIN_VERDICTS:
        return VerdictCode(name)
    if name in _JUMPS:
        return VerdictCode(name, _text(content["target"]))
    raise ValueError(name)


def constant_text(value: Any) -> str:
    """Return the text of a constant.

    Raises:
        ValueError: It is no constant.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    name, content = _only(value)
    match name:
        case "prefix":
            return f"{_text(content['addr'])}/{number_of(content['len'])}"
        case "range":
            first, last = content
            return f"{constant_text(first)}-{constant_text(last)}"
        case "elem":
            return constant_text(content["val"])
        case _:
            raise ValueError(name)


def number_of(value: Any) -> int:
    """Return a number.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        message = "not a number"
        raise ValueError(message)  # noqa: TRY004 - callers treat all faults alike
    return value


def texts_of(value: Any) -> list[str]:
    """Return one text or a list of texts, such as flags; anything else in it as JSON."""
    values = value if isinstance(value, list) else [] if value is None else [value]
    return [each if isinstance(each, str) else msgspec.json.encode(each).decode() for each in values]


def _statements(value: Any) -> Iterable[NftStatement]:
    """Return the statements of an entry: a text for what nft cannot print as JSON, such as an update of a map."""
    if not isinstance(value, str):
        return (_statement(value),)
    try:
        return text_rule([word.text for word in words_of(value, "")]).statements
    except InputError:
        return (OtherStatement(value),)


def _statement(value: Any) -> NftStatement:
    try:
        name, content = _only(value)
        if name in _PLAIN_VERDICTS or name in _JUMPS:
            return json_verdict(value)
        return _STATEMENTS[name](content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return OtherStatement(msgspec.json.encode(value).decode())


def _compare(content: Any) -> Compare:
    left = _expression(content["left"])
    operator = content["op"]
    if operator not in _OPERATORS:
        raise ValueError(operator)
    return Compare(left, _constant(left, content["right"]), operator)


def _constant(left: Expression, value: Any) -> Expression:
    if isinstance(value, str) and value.startswith("@"):
        return SetReference(value[1:])
    if isinstance(value, list):
        return canonical.constant(left, ",".join(map(constant_text, value)))
    if isinstance(value, dict) and "set" in value:
        content = value["set"]
        if isinstance(content, str):
            return SetReference(content.removeprefix("@"))
        return canonical.constants(left, [constant_text(each) for each in content])
    return canonical.constant(left, constant_text(value))


def _verdict_lookup(content: Any) -> VerdictLookup:
    return VerdictLookup(_expression(content["key"]), _map(content["data"]))


def _map(value: Any) -> SetReference | AnonymousMap:
    if isinstance(value, str) and value.startswith("@"):
        return SetReference(value[1:])
    return AnonymousMap.of((_value(key), _value(mapped)) for key, mapped in value["set"])


def _value(value: Any) -> Expression:
    """Return a key or value of an anonymous map."""
    if isinstance(value, dict):
        if "concat" in value:
            return Concat(tuple(Literal(constant_text(part)) for part in value["concat"]))
        if value.keys() & (_PLAIN_VERDICTS | _JUMPS):
            return json_verdict(value)
    return Literal(constant_text(value))


def _assign(content: Any) -> Assign:
    key = _expression(content["key"])
    if not isinstance(key, Meta | Ct):
        raise TypeError
    value = content["value"]
    return Assign(key, _expression(value) if isinstance(value, dict) else _constant(key, value))


def _dnat(content: Any) -> Dnat:
    if content.keys() - {"addr", "port", "family", "type_flags"}:
        raise ValueError
    address, port = content["addr"], content.get("port")
    is_constant = isinstance(address, str)
    to = canonical.constant(Payload("ip", "daddr"), address) if is_constant else _expression(address)
    return Dnat(to, None if port is None else Literal(str(number_of(port))))


def _masquerade(content: Any) -> MasqueradeSource:
    if content is None:
        return MasqueradeSource()
    if content.keys() - {"flags"}:
        raise ValueError
    return MasqueradeSource(frozenset(texts_of(content.get("flags"))))


def _reject(content: Any) -> RejectPacket:
    if content is None:
        return RejectPacket()
    code = " ".join(_text(content[field]) for field in ("type", "expr") if field in content)
    return RejectPacket("" if code in _DEFAULT_REJECTS else code)


def _update(content: Any) -> UpdateSet:
    element, timeout = content["elem"], None
    if isinstance(element, dict) and "elem" in element:
        details = element["elem"]
        timeout, element = number_of(details["timeout"]) if "timeout" in details else None, details["val"]
    data = _expression(content["data"]) if "data" in content else None
    reference = _text(content.get("set") or content["map"]).removeprefix("@")
    return UpdateSet(_text(content["op"]), SetReference(reference), _expression(element), data, timeout)


_STATEMENTS: Final[Mapping[str, Callable[[Any], NftStatement]]] = {
    "match": _compare,
    "vmap": _verdict_lookup,
    "mangle": _assign,
    "dnat": _dnat,
    "masquerade": _masquerade,
    "reject": _reject,
    "counter": lambda _: CountPackets(),
    "set": _update,
    "map": _update,
}


def _expression(value: Any) -> Expression:
    name, content = _only(value)
    if name in _BITWISE:
        left, right = content
        first = _expression(left)
        return Bitwise(name, first, _expression(right) if isinstance(right, dict) else _constant(first, right))
    return _EXPRESSIONS[name](content)


_EXPRESSIONS: Final[Mapping[str, Callable[[Any], Expression]]] = {
    "payload": lambda content: Payload(_text(content["protocol"]), _text(content["field"])),
    "meta": lambda content: Meta(_text(content["key"])),
    "ct": lambda content: Ct(_text(content["key"]), _text(content["dir"]) if "dir" in content else ""),
    "fib": lambda content: Fib(tuple(texts_of(content["flags"])), _text(content["result"])),
    "numgen": lambda content: Numgen(
        _text(content["mode"]), number_of(content["mod"]), number_of(content.get("offset", 0))
    ),
    "concat": lambda content: Concat(tuple(map(_expression, content))),
    "map": lambda content: MapLookup(_expression(content["key"]), _map(content["data"])),
}


def _only(value: Any) -> tuple[str, Any]:
    if not isinstance(value, dict) or len(value) != 1:
        raise ValueError
    ((name, content),) = value.items()
    return name, content


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
