"""Statements and expressions in the text of nft (nft(8))."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

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
    is_bit_field,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_HEADERS: Final = frozenset({"ip", "ip6", "th", "tcp", "udp", "sctp"})
_BARE_META: Final = frozenset({"iifname", "oifname", "iif", "oif"})
_COMPARISONS: Final = frozenset({"==", "!=", "<", ">", "<=", ">="})
_BITWISE: Final = {"&": "&", "|": "|", "^": "^", "and": "&", "or": "|", "xor": "^"}
_PLAIN_VERDICTS: Final = frozenset({"accept", "drop", "return", "continue"})
_JUMPS: Final = frozenset({"jump", "goto"})
_HOST_AND_PORT: Final = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})\Z")
_DIRECTIONS: Final = frozenset({"original", "reply"})
_DEFAULT_REJECTS: Final = frozenset({"icmp port-unreachable", "icmpv6 port-unreachable", "icmpx port-unreachable"})
_NAT_FLAGS: Final = frozenset({"random", "fully-random", "persistent"})


def text_rule(words: Sequence[str]) -> NftRule:
    """Return the rule that has these words; what rulegen never writes is kept as text."""
    return _Rule(words).read()


def text_verdict(words: Sequence[str]) -> VerdictCode:
    """Return the verdict of these words; an unknown one has all of them as its code."""
    match list(words):
        case [("jump" | "goto") as code, target]:
            return VerdictCode(code, target.strip('"'))
        case _:
            return VerdictCode(" ".join(words))


class _Rule:
    """The words of one rule, read one after the other."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words, self._next = words, 0
        self._statements: list[NftStatement] = []

    def read(self) -> NftRule:
        why = ""
        while self._next < len(self._words):
            start = self._next
            try:
                if self._text == "comment":
                    self._take()
                    why = self._take().strip('"')
                    continue
                self._statements.append(self._statement())
            except (ValueError, IndexError):
                self._statements.append(OtherStatement(" ".join(self._words[start:])))
                break
        return NftRule(tuple(self._statements), why)

    @property
    def _text(self) -> str:
        return self._words[self._next] if self._next < len(self._words) else ""

    def _take(self, expected: str = "") -> str:
        word = self._words[self._next]
        if expected and word != expected:
            raise ValueError(word)
        self._next += 1
        return word

    def _statement(self) -> NftStatement:
        word = self._text
        if word in _PLAIN_VERDICTS:
            return VerdictCode(self._take())
        if word in _JUMPS:
            return VerdictCode(self._take(), self._take().strip('"'))
        if word in _STATEMENTS:
            return _STATEMENTS[word](self)
        left = self._expression()
        word = self._text
        if word == "vmap":
            self._take()
            return VerdictLookup(left, self._map())
        if word == "set" and isinstance(left, Meta | Ct):
            self._take()
            return Assign(left, self._assigned(left))
        operator = self._take() if word in _COMPARISONS else "in" if is_bit_field(left) else "=="
        return Compare(left, self._constant(left), operator)

    def counter(self) -> CountPackets:
        self._take()
        for word in ("packets", "bytes"):
            if self._text == word:
                self._take()
                canonical.number(self._take())
        return CountPackets()

    def masquerade(self) -> MasqueradeSource:
        self._take()
        flags: list[str] = []
        while self._text in _NAT_FLAGS or (flags and self._text == ","):
            flags.append(self._take())
        return MasqueradeSource(frozenset(flags) - {","})

    def reject(self) -> RejectPacket:
        self._take()
        if self._text != "with":
            return RejectPacket()
        self._take()
        words = [self._take(), self._take()]
        if words[1] == "type":  # nft before 1.0.0
            words[1] = self._take()
        code = " ".join(words)
        return RejectPacket("" if code in _DEFAULT_REJECTS else code)

    def dnat(self) -> Dnat:
        self._take()
        if self._text in {"ip", "ip6"}:
            self._take()
        self._take("to")
        if self._text in _HEADERS or self._text in {"meta", "ct", "numgen"}:
            return Dnat(self._value())
        text = self._take()
        match = _HOST_AND_PORT.match(text)
        address, port = (match[1] or match[2], Literal(match[3])) if match else (text, None)
        return Dnat(canonical.constant(Payload("ip", "daddr"), address), port)

    def update(self) -> UpdateSet:
        operator, reference = self._take(), self._take()
        if not reference.startswith("@"):
            raise ValueError(reference)
        self._take("{")
        key, timeout, data = self._expression(), None, None
        if self._text == "timeout":
            self._take()
            timeout = canonical.seconds(self._take())
        if self._text == ":":
            self._take()
            data = self._expression()
        self._take("}")
        return UpdateSet(operator, SetReference(reference[1:]), key, data, timeout)

    def _assigned(self, left: Meta | Ct) -> Expression:
        return self._expression() if self._text in {"meta", "ct"} else self._constant(left)

    def _value(self) -> Expression:
        key = self._expression()
        self._take("map")
        return MapLookup(key, self._map())

    def _expression(self) -> Expression:
        parts = [self._primary()]
        while self._text == ".":
            self._take()
            parts.append(self._primary())
        left: Expression = parts[0] if len(parts) == 1 else Concat(tuple(parts))
        while self._text in _BITWISE:
            operator = _BITWISE[self._take()]
            left = Bitwise(operator, left, self._constant(left))
        return left

    def _primary(self) -> Expression:
        word = self._take()
        if word in _HEADERS:
            return Payload(word, self._take())
        if word in _BARE_META:
            return Meta(word)
        match word:
            case "meta":
                return Meta(self._take())
            case "ct":
                direction = self._take() if self._text in _DIRECTIONS else ""
                key = self._take()
                return Ct(f"{key} {self._take()}" if key in {"ip", "ip6"} else key, direction)
            case "fib":
                return self._fib()
            case "numgen":
                mode, _, modulus = self._take(), self._take("mod"), canonical.number(self._take())
                has_offset = self._text == "offset"
                offset = canonical.number(self._words[self._next + 1]) if has_offset else 0
                self._next += 2 * has_offset
                return Numgen(mode, modulus, offset)
            case _:
                raise ValueError(word)

    def _fib(self) -> Fib:
        flags = [self._take()]
        while self._text == ".":
            self._take()
            flags.append(self._take())
        return Fib(tuple(flags), self._take())

    def _constant(self, left: Expression) -> Expression:
        word = self._take()
        if word.startswith("@"):
            return SetReference(word[1:])
        if word == "{":
            texts = [self._take()]
            while self._text == ",":
                self._take()
                texts.append(self._take())
            self._take("}")
            return canonical.constants(left, texts)
        while is_bit_field(left) and self._text == ",":
            word += self._take() + self._take()
        return canonical.constant(left, word)

    def _map(self) -> SetReference | AnonymousMap:
        word = self._take()
        if word.startswith("@"):
            return SetReference(word[1:])
        if word != "{":
            raise ValueError(word)
        items = []
        while self._text != "}":
            key = self._until(":")
            self._take(":")
            value = self._until(",")
            items.append((_mapped(key), _mapped(value)))
            if self._text == ",":
                self._take()
        self._take("}")
        return AnonymousMap.of(items)

    def _until(self, end: str) -> list[str]:
        words = []
        while self._text not in {end, "}"}:
            words.append(self._take())
        return words


def _mapped(words: list[str]) -> Expression:
    """Return a key or value of an anonymous map.

    Raises:
        ValueError: There are no words.
    """
    if not words:
        raise ValueError
    if words[0] in _PLAIN_VERDICTS or words[0] in _JUMPS:
        return text_verdict(words)
    parts = " ".join(words).split(" . ")
    literals = tuple(map(Literal, parts))
    return literals[0] if len(literals) == 1 else Concat(literals)


_STATEMENTS: Final[Mapping[str, Callable[[_Rule], NftStatement]]] = {
    "counter": _Rule.counter,
    "masquerade": _Rule.masquerade,
    "reject": _Rule.reject,
    "dnat": _Rule.dnat,
    "update": _Rule.update,
    "add": _Rule.update,
}
