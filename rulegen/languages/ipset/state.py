"""Sets and entries as objects with keys, and their text in the format of `ipset save` and `ipset restore`.

Source: ipset(8). An entry is the text that the tool prints: `10.96.0.1,tcp:443`, `30080`, or
`10.0.0.1,tcp:80,192.0.2.0/24`. It leaves out a prefix length of all bits, and writes IPv6 addresses as in RFC 5952.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from rulegen.diff.changes import Change
from rulegen.errors import InputError
from rulegen.net import parse_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rulegen.net import Address, Network, Protocol

NAME_MAX = 31
"""The longest name that the kernel accepts (IPSET_MAXNAMELEN without the NUL)."""

MAXELEM = 65536
"""The default maximum number of entries of a hash."""

PORTS = "0-65535"
"""The range of a bitmap for all ports."""

_FIRST = re.compile(r"^(?!#)(?=[^\n]*\S)[^\n]*", re.MULTILINE)
"""The first line with content."""
_FLAGS = ("timeout", "counters", "comment", "skbinfo", "forceadd", "nomatch", "wildcard")
_FAMILY_OF_NETFILTER = ("inet", "inet6")


class SetKey(NamedTuple):
    """The key of a set."""

    name: str


class EntryKey(NamedTuple):
    """The key of an entry. It sorts after the key of its set."""

    name: str
    entry: str


@dataclass(frozen=True, slots=True)
class SetValue:
    """A set without its entries.

    Attributes:
        type: Such as `hash:ip,port` or `bitmap:port`.
        family: `inet` or `inet6`; empty for a bitmap, which has none.
        range: The range of a bitmap; empty for a hash.
        extensions: The extensions of each entry, such as timeout, counters or comment; ours have none.
        maxelem: How many entries a hash holds at most. It is no part of equality: with room enough, it means nothing.
    """

    type: str
    family: str = ""
    range: str = ""
    extensions: frozenset[str] = frozenset()
    maxelem: int = field(default=MAXELEM, compare=False)

    @property
    def is_hash(self) -> bool:
        """Whether the set is a hash, which can become full; a bitmap has room for its whole range."""
        return self.type.startswith("hash:")

    def with_room(self, count: int) -> SetValue:
        """Return the set itself if it has room for `count` entries, else one with room for about twice as many.

        kube-proxy runs `create` for sets that exist, and the kernel rejects this if maxelem differs. So maxelem stays
        as kube-proxy writes it while it is large enough.
        """
        if not self.is_hash or count <= self.maxelem:
            return self
        return replace(self, maxelem=1 << count.bit_length())

    @property
    def options(self) -> str:
        """The words after the name in a `create` line, without hashsize, which the kernel adapts."""
        words = [self.type]
        words += ["family", self.family] if self.family else []
        words += ["maxelem", str(self.maxelem)] if self.is_hash else []
        words += ["range", self.range] if self.range else []
        for flag in sorted(self.extensions):
            words += [flag, "0"] if flag == "timeout" else [flag]
        return " ".join(words)


class EntryValue(msgspec.Struct, frozen=True):
    """The extensions of an entry as the tool prints them, such as `timeout 30 comment "x"`; ours have none."""

    options: str = ""


Key = SetKey | EntryKey
Value = SetValue | EntryValue
Objects = dict[Key, Value]

PLAIN = EntryValue()
"""The value of an entry without extensions."""


def port_entry(port: int) -> str:
    """Return an entry of a bitmap:port."""
    return str(port)


def ip_port(address: Address, protocol: Protocol, port: int) -> str:
    """Return an entry of a hash:ip,port."""
    return f"{address},{protocol.lower()}:{port}"


def ip_port_ip(address: Address, protocol: Protocol, port: int, other: Address) -> str:
    """Return an entry of a hash:ip,port,ip."""
    return f"{address},{protocol.lower()}:{port},{other}"


def ip_port_net(address: Address, protocol: Protocol, port: int, network: Network) -> str:
    """Return an entry of a hash:ip,port,net; a prefix of all bits is left out, as the tool prints it."""
    whole = network.prefixlen == network.max_prefixlen
    return f"{address},{protocol.lower()}:{port},{network.network_address if whole else network}"


def read(text: str, source: str) -> Objects:
    """Return all sets and entries that `ipset save` printed, ours and foreign ones.

    Raises:
        InputError: A line is none of that format; the message has its number.
    """
    objects: Objects = {}
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip(" \t\r")
        if not line or line[0] == "#":
            continue
        word, _, rest = line.partition(" ")
        name, _, rest = rest.partition(" ")
        if word == "add" and rest and SetKey(name) not in objects:
            raise InputError(source, f"line {number}: an entry of the set {name[:31]!r}, which no line before creates")
        if word == "add" and rest:
            entry, _, options = rest.partition(" ")
            objects[EntryKey(name, _canonical(entry))] = EntryValue(options) if options else PLAIN
        elif word == "create" and rest:
            objects[SetKey(name)] = _set_value(rest.split(" "))
        else:
            raise InputError(source, f"line {number}: not a line of ipset save: {line[:80]!r}")
    return objects


def is_dump(text: str) -> bool:
    """Whether the text looks like the output of `ipset save`."""
    match = _FIRST.search(text)
    first = match[0] if match else ""
    return first.startswith("create ")


def format_sets(objects: Mapping[Key, Value]) -> str:
    """Return the input of `ipset restore` for sets and their entries, sorted by name."""
    entries: dict[str, list[str]] = defaultdict(list)
    for key, value in objects.items():
        if isinstance(key, EntryKey) and isinstance(value, EntryValue):
            entries[key.name].append(f"add {key.name} {key.entry} {value.options}".rstrip())
    lines: list[str] = []
    for key, value in sorted(_sets(objects)):
        lines.append(f"create {key.name} {value.options}")
        lines += sorted(entries[key.name])
    return "".join(f"{line}\n" for line in lines)


def owned_objects(objects: Mapping[Key, Value], names: Iterable[str]) -> Objects:
    """Return the sets with these names, and their entries."""
    ours = frozenset(names)
    return {key: value for key, value in objects.items() if key.name in ours}


def needs_resize(there: Mapping[Key, Value], wanted: Mapping[Key, Value]) -> Iterator[Change[Key, Value]]:
    """Yield a change for each set without room for its present and its wanted entries together."""
    counts = Counter(key.name for key in there.keys() | wanted.keys() if isinstance(key, EntryKey))
    for key, before in _sets(there):
        after = wanted.get(key)
        if isinstance(after, SetValue) and before == after and before.with_room(counts[key.name]) is not before:
            yield Change(key, before, after.with_room(counts[key.name]))


def filled(keys: Iterable[Key]) -> frozenset[str]:
    """Return the names of the sets that have an entry."""
    return frozenset(key.name for key in keys if isinstance(key, EntryKey))


def _sets(objects: Mapping[Key, Value]) -> Iterator[tuple[SetKey, SetValue]]:
    for key, value in objects.items():
        if isinstance(key, SetKey) and isinstance(value, SetValue):
            yield key, value


def _set_value(words: list[str]) -> SetValue:
    """Return the set that the words after `create NAME` describe; unknown words are ignored."""
    options = dict(pairwise(words[1:]))
    maxelem = options.get("maxelem", "")
    return SetValue(
        type=words[0],
        family=options.get("family", "") if options.get("family") in _FAMILY_OF_NETFILTER else "",
        range=options.get("range", ""),
        extensions=frozenset(word for word in words[1:] if word in _FLAGS),
        maxelem=int(maxelem) if _NUMBER.match(maxelem) else MAXELEM,
    )


_NUMBER = re.compile(r"[0-9]{1,10}\Z")
_MIXED = re.compile(r"[0-9a-f:]*::?[0-9a-f:.]*\.[0-9.]+")


def _canonical(entry: str) -> str:
    """Return an entry with IPv6 addresses that the tools print with dotted octets as RFC 5952 text."""
    if "." not in entry or "::" not in entry:
        return entry
    return _MIXED.sub(lambda match: _address(match[0]), entry)


def _address(text: str) -> str:
    try:
        return str(parse_address(text))
    except ValueError:  # no address: it stays as it is
        return text
