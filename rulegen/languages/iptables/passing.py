"""Steps between a mode and a proxy that gets packets by their mark, so that no packet meets rules of both.

Tables are committed one by one. Chains of table mangle mark packets for the proxy, which therefore keep their
destination: table nat must not translate them, not even in the moment between two commits. Its jumps skip marked
packets before any packet is marked, and until none is.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from rulegen.diff.changes import Change, diff
from rulegen.languages.iptables.ruleset import ChainName, target
from rulegen.languages.iptables.state import BlockKey, BlockValue, ChainKey, ChainPosition, ChainValue

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from rulegen.languages.iptables.state import Key, Objects, Value
    from rulegen.languages.language import Changes

_TRANSLATING: Final = frozenset({ChainName("nat", "PREROUTING"), ChainName("nat", "OUTPUT")})
_CLEARS: Final = re.compile(r"-j MARK --set-xmark 0x0/(0x[0-9a-f]+)$")
_SKIPS: Final = "-m mark ! --mark "


def mark_of(objects: Mapping[Key, Value], leading: Collection[ChainName]) -> int:
    """Return the mark of the packets that leading chains send to the proxy, which they clear first; 0 without any."""
    chains = (objects.get(ChainKey(name)) for name in leading if name.table != "nat")
    specs = (rule.spec for chain in chains if isinstance(chain, ChainValue) for rule in chain.rules)
    return max((int(match[1], 16) for spec in specs if (match := _CLEARS.search(spec))), default=0)


def stages(ours: Objects, desired: Objects, leading: Collection[ChainName]) -> tuple[Changes, ...]:
    """Return the changes of a move in the order of their commits; nothing if no translated packets get a mark.

    To a proxy: the jumps of the mode skip marked packets, then all changes. From it: all changes, with jumps that skip
    marked packets and without the removal of what marks them; then this removal; then the final jumps.
    """
    had, has = mark_of(ours, leading), mark_of(desired, leading)
    if bool(had) is bool(has):
        return ()
    last = _skipping(desired, leading, had or has)
    if last == desired:
        return ()  # beside a mode, whose own jumps skip them
    if has:
        middle = _skipping(ours, leading, has)
        is_translating = any(key.name in _TRANSLATING for key in middle)
        return (diff(ours, middle), diff(middle, desired)) if is_translating else ()
    marks = {key: value for key, value in ours.items() if key not in last and _marks(key, leading)}
    last |= {key: value for key, value in marks.items() if key.name.table != "mangle"}
    middle = {**last, **marks}
    return diff(ours, middle), diff(middle, last), diff(last, desired)


def _skipping(objects: Objects, leading: Collection[ChainName], mark: int) -> Objects:
    """Return the objects with jumps that marked packets do not take, instead of those that translate all packets."""
    names = {name.chain for name in leading}
    skipping = dict(objects)
    for key, value in objects.items():
        if key.name in _TRANSLATING and isinstance(value, BlockValue):
            rule = value.copies[0][0]
            if _SKIPS not in rule.spec and target(rule) not in names:
                del skipping[key]
                rule = replace(rule, spec=f"{_SKIPS}{mark:#x}/{mark:#x} {rule.spec}", printed="")
                skipping[BlockKey(key.name, (rule.spec,))] = BlockValue(((rule,),), ChainPosition.HEAD)
    return skipping


def _marks(key: Key, leading: Collection[ChainName]) -> bool:
    """Whether an object belongs to what marks packets, or lets them reach the proxy."""
    if key.name.table in {"nat", "mangle"}:
        return key.name.table == "mangle"
    names = {name.chain for name in leading}
    return key.name in leading or (isinstance(key, BlockKey) and f" {key.specs[-1]}".rpartition(" -j ")[2] in names)


def lasting(changes: Changes, leading: Collection[ChainName]) -> frozenset[Key]:
    """Return the keys of what goes, but must stay until open connections through the proxy have ended.

    It is the chain that clears the mark, and marks packets of these connections, and the jump to it.
    """
    clearing = {
        change.key.name.chain
        for change in changes
        if change.after is None and change.key.name in leading and isinstance(change.before, ChainValue)
        if any(_CLEARS.search(rule.spec) for rule in change.before.rules)
    }

    def lasts(change: Change[Key, Value]) -> bool:
        if change.after is not None or change.key.name.table != "mangle":
            return False
        copies = change.before.copies if isinstance(change.before, BlockValue) else ()
        return change.key.name.chain in clearing or any(target(copy[0]) in clearing for copy in copies)

    return frozenset(change.key for change in changes if lasts(change)) if clearing else frozenset()
