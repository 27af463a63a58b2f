"""Texts of iptables-save: which lines are a proxy's and which are others', and ways to spoil the former."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from integration.blackbox import VARIANT_ROWS
from integration.lab.hosts import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from random import Random

    from integration.blackbox import Variant
    from integration.lab.hosts import Family, Host

PROXY_CHAIN = re.compile(
    r"KUBE-(?:(?:SVC|SVL|EXT|FW|SEP)-[A-Z2-7]{16}"
    r"|SERVICES|EXTERNAL-SERVICES|NODEPORTS|POSTROUTING|MARK-MASQ|FORWARD|PROXY-FIREWALL|PROXY-CANARY|FIREWALL)"
)
"""Names that belong to a proxy, by the contract between proxies. What a kubelet or a router calls KUBE-… is theirs."""

_BUILT_IN = {"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}
_TABLES = ("raw", "mangle", "nat", "filter")


def tool(variant: Variant, family: Family) -> str:
    """Return the name of the tool for a variant and family, without `-save` or `-restore`."""
    return f"{'iptables' if family == 4 else 'ip6tables'}-{VARIANT_ROWS[variant].iptables}"


def save(node: Host, variant: Variant) -> dict[Family, str]:
    """Return all rules of a node, without comments of the tool and with all counters 0."""
    return {family: _plain(node.run([f"{tool(variant, family)}-save"]).check().stdout) for family in FAMILIES}


def load(node: Host, variant: Variant, texts: Mapping[Family, str]) -> None:
    """Make a node's rules those of the texts and nothing else."""
    for family, text in texts.items():
        node.run([f"{tool(variant, family)}-restore"], stdin=text).check()


def wipe(node: Host, variant: Variant) -> None:
    """Take all rules off a node, a proxy's and others'."""
    load(node, variant, dict.fromkeys(FAMILIES, "".join(f"*{table}\nCOMMIT\n" for table in _TABLES)))


def _plain(text: str) -> str:
    lines = (line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    return re.sub(r"\[\d+:\d+\]", "[0:0]", "".join(lines))


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a save within its table."""

    table: str
    text: str

    @property
    def chain(self) -> str:
        """The chain that it declares or adds to."""
        return self.text.split()[0][1:] if self.text.startswith(":") else self.text.split()[1]

    @property
    def is_rule(self) -> bool:
        """Whether it is a rule, no declaration."""
        return self.text.startswith("-A ")

    @property
    def is_proxys(self) -> bool:
        """Whether a proxy wrote it: its chain, or its jump to a chain of its own from a built-in one."""
        if PROXY_CHAIN.fullmatch(self.chain):
            return True
        jump = re.search(r".* -j (\S+)", self.text)
        return self.is_rule and self.chain in _BUILT_IN and bool(jump and PROXY_CHAIN.fullmatch(jump[1]))


def lines(text: str) -> Iterator[Line]:
    """Yield the declarations and rules of a save, in order."""
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line != "COMMIT":
            yield Line(table, line)


def joined(given: list[Line]) -> str:
    """Return the text of lines again: tables in order of appearance, declarations first."""
    tables = dict.fromkeys(line.table for line in given)
    parts = []
    for table in tables:
        own = [line for line in given if line.table == table]
        declared = [line.text for line in own if not line.is_rule]
        parts += [f"*{table}", *declared, *(line.text for line in own if line.is_rule), "COMMIT"]
    return "".join(f"{part}\n" for part in parts)


def foreign(texts: Mapping[Family, str]) -> dict[Family, list[Line]]:
    """Return what no proxy wrote, in order, but for built-in chains that are empty and accept, which mean nothing."""
    result = {}
    for family, text in texts.items():
        kept = [line for line in lines(text) if not line.is_proxys]
        result[family] = [line for line in kept if not line.text.endswith(" ACCEPT [0:0]")]
    return result


def spoil(text: str, random: Random, count: int) -> str:
    """Return a save with some of the proxy's lines lost, doubled, moved, edited or invented, `count` times."""
    spoiled = list(lines(text))
    for _ in range(count):
        candidates = [number for number, line in enumerate(spoiled) if line.is_proxys and line.is_rule]
        if not candidates:
            break
        random.choice(_SPOILERS)(spoiled, random.choice(candidates), random)
    return joined(spoiled)


def _lose(given: list[Line], number: int, _: Random) -> None:
    del given[number]


def _lose_chain(given: list[Line], number: int, _: Random) -> None:
    """Lose a whole chain and all that leads to it."""
    table, chain = given[number].table, given[number].chain
    if not PROXY_CHAIN.fullmatch(chain):
        return
    leads = re.compile(rf" -j {re.escape(chain)}$")
    given[:] = [line for line in given if line.table != table or not (line.chain == chain or leads.search(line.text))]


def _double(given: list[Line], number: int, _: Random) -> None:
    given.insert(number, given[number])


def _move(given: list[Line], number: int, random: Random) -> None:
    """Put a rule elsewhere in its own chain."""
    line = given[number]
    same = [n for n, other in enumerate(given) if other.table == line.table and other.chain == line.chain]
    other = random.choice([n for n in same if given[n].is_rule])
    given.insert(other, given.pop(number))


def _edit(given: list[Line], number: int, random: Random) -> None:
    """Change a port, a mark or a probability in a rule."""
    line = given[number]
    changed = re.sub(r"(--dport )\d+", rf"\g<1>{random.randrange(1, 65536)}", line.text)
    changed = re.sub(r"(--to-destination \S+:)\d+", rf"\g<1>{random.randrange(1, 65536)}", changed)
    changed = re.sub(r"(--probability )[\d.]+", r"\g<1>0.25000000000", changed)
    given[number] = Line(line.table, changed)


def _invent(given: list[Line], number: int, random: Random) -> None:
    """Put a stranger's rule into a chain of the proxy."""
    line = given[number]
    if PROXY_CHAIN.fullmatch(line.chain):
        comment = f"a stranger {random.randrange(100)}"
        given.insert(number, Line(line.table, f'-A {line.chain} -m comment --comment "{comment}" -j RETURN'))


def _leave_behind(given: list[Line], number: int, random: Random) -> None:
    """Leave a chain of a Service that is no more."""
    table = given[number].table
    if table == "nat":
        name = "KUBE-SVC-" + "".join(random.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", k=16))
        given[:0] = [Line(table, f":{name} - [0:0]"), Line(table, f"-A {name} -j RETURN")]


_SPOILERS = (_lose, _lose, _lose_chain, _double, _move, _edit, _invent, _leave_behind)
