"""The ruleset of one family: all tables, chains and rules, ours and foreign ones, and the text that the tools print.

Source: the format of iptables-save(8) and iptables-restore(8).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from rulegen.errors import InputError
from rulegen.languages.iptables.rules import Rule
from rulegen.net import Family

if TYPE_CHECKING:
    from collections.abc import Iterator

_QUOTED_COMMENT = '-m comment --comment "'
_COMMENT = re.compile(r'-m comment --comment ("(?:[^"\\]|\\.)*"|\S+) ?')
_CHAIN = re.compile(r":(\S+) (\S+)(?: \[\d+:\d+\])?\Z")
_COUNTERS = re.compile(r"\[\d+:\d+\] ")
_APPEND = re.compile(r"-A (\S+) ?(.*)\Z", re.DOTALL)
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_INCOMPATIBLE = re.compile(r"# Table `(\S+?)' is incompatible")

TABLES = ("nat", "filter", "mangle")
"""The tables that hold rules for Services."""

UNREADABLE = "[unsupported revision]"
"""The text that the tools print instead of options which a newer iptables has written."""


class ChainName(NamedTuple):
    """A chain within its table."""

    table: str
    chain: str

    def __str__(self) -> str:
        return f"{self.table} {self.chain}"


@dataclass(slots=True)
class Chain:
    """The rules of a chain, in order. Only built-in chains have a policy."""

    policy: str | None = None
    rules: list[Rule] = field(default_factory=list)


@dataclass(slots=True)
class Ruleset:
    """All tables of one family.

    Attributes:
        tables: The printed tables, including those without rules.
        unknown: The tables that were not read; nothing is known about their chains.
        is_readable: Whether the tool could print every option of every rule.
    """

    family: Family
    chains: dict[ChainName, Chain] = field(default_factory=dict)
    tables: set[str] = field(default_factory=set)
    unknown: frozenset[str] = frozenset()
    is_readable: bool = True

    def rules(self) -> Iterator[tuple[ChainName, Rule]]:
        """Yield each rule with its chain."""
        for name, chain in self.chains.items():
            for rule in chain.rules:
                yield name, rule


def target(rule: Rule) -> str:
    """Return the chain or verdict that the rule jumps or goes to; empty for none."""
    spec = rule.spec
    if '"' in spec:  # quoted text is a comment and may contain anything
        spec = _QUOTED.sub('""', spec)
    spec = f" {spec}"
    at = max(spec.find(" -j "), spec.find(" -g "))
    return spec[at + 4 :].partition(" ")[0] if at >= 0 else ""


def is_unreadable(rule: Rule) -> bool:
    """Whether the tool could not print an option of the rule, because a newer tool wrote the rule."""
    return UNREADABLE in rule.spec and UNREADABLE in _QUOTED.sub('""', rule.spec)


def may_be(printed: Rule, rule: Rule) -> bool:
    """Whether all readable options of a rule agree with another rule.

    >>> printed = read_rule("-m conntrack [unsupported revision] -j DROP")
    >>> may_be(printed, read_rule("-m conntrack --ctstate INVALID -j DROP"))
    True
    >>> may_be(printed, read_rule("-m conntrack --ctstate INVALID -m mark --mark 0x1 -j DROP"))
    False
    """
    parts = (re.escape(part.rstrip()) for part in printed.spec.split(UNREADABLE))
    return re.fullmatch(r"(?: (?!-[mjg] )\S+)*".join(parts), rule.spec) is not None


def unreadable_rules(ruleset: Ruleset) -> int:
    """Return how many rules have options that the tool could not print."""
    return 0 if ruleset.is_readable else sum(is_unreadable(rule) for _, rule in ruleset.rules())


def read_rule(text: str) -> Rule:
    r"""Return the rule that `iptables-save` printed behind `-A CHAIN`.

    >>> read_rule('-d 10.0.0.1/32 -p tcp -m comment --comment "a \\\\"b\\\\"" -m tcp --dport 80 -j X').spec
    '-d 10.0.0.1/32 -p tcp -m tcp --dport 80 -j X'
    """
    spec, comment = text, ""
    if "--comment " in text:
        at = text.find(_QUOTED_COMMENT)
        end = text.find('"', at + len(_QUOTED_COMMENT))
        if at >= 0 and text[end + 1 : end + 2] in {" ", ""} and "\\" not in text and text.count("--comment ") == 1:
            comment = text[at + len(_QUOTED_COMMENT) : end]  # as nearly all are, and there may be 100,000
            spec = f"{text[:at]}{text[end + 2 :]}".rstrip()
        elif match := _COMMENT.search(text):
            comment = _unquote(match.group(1))
            spec = _COMMENT.sub("", text).rstrip()
    if "  " in spec:  # the tools print two spaces behind --nfacct-name
        spec = _single_spaced(spec)
    return Rule(spec, comment, "" if spec == text else text)


def read(text: str, source: str, family: Family) -> Ruleset:
    """Return the ruleset that `iptables-save` printed.

    Raises:
        InputError: A line does not have that format, the text is incomplete, a table appears twice, or the tool could
            not print a table. The message has the number of the line.
    """
    ruleset = Ruleset(family, is_readable=UNREADABLE not in text)
    table = ""
    is_headed = False
    chains: dict[str, Chain] = {}
    for number, raw in enumerate(_lines(text), start=1):
        line = raw.strip(" \t\r")  # others' comments may hold any other line or space of Unicode
        if not line:
            continue
        if line[0] == "#":
            _refuse_incompatible(line, source, family)
            is_headed = is_headed or line.startswith("# Generated by ip")
        elif line[0] == "*" and not table:
            table, chains, is_headed = line[1:], {}, False
            if table in ruleset.tables:
                raise InputError(
                    source, f"line {number}: a second table {table}", hint="give one file for each family and node"
                )
            ruleset.tables.add(table)
        elif line == "COMMIT" and table:
            ruleset.chains.update((ChainName(table, name), chain) for name, chain in chains.items())
            table = ""
        elif line[0] == "*":
            raise InputError(source, f"line {number}: table {table} is not complete: no COMMIT", hint=_AGAIN)
        elif not table or not _read_line(chains, line):
            raise InputError(source, f"line {number}: not a line of iptables-save: {line[:80]!r}", hint=_AGAIN)
    if table:
        raise InputError(source, f"table {table} is not complete: no COMMIT", hint=_AGAIN)
    if is_headed:
        raise InputError(source, "the text ends where a table should begin", hint=_AGAIN)
    return ruleset


_AGAIN = "save the rules again, with iptables-save or ip6tables-save"


def _refuse_incompatible(line: str, source: str, family: Family) -> None:
    """Reject a table of ours that the tool could not print.

    Raises:
        InputError: The line says so.
    """
    match = _INCOMPATIBLE.match(line)
    if match and match[1] in TABLES:
        raise InputError(source, unprintable(match[1]), hint=unprintable_hint(match[1], family))


def unprintable(table: str) -> str:
    """Return what is wrong with a table that iptables-nft cannot print."""
    return f"table {table} holds rules that are not iptables' own, so it cannot be read"


def unprintable_hint(table: str, family: Family) -> str:
    """Return the command that shows such a table."""
    return f"`nft list table {'ip' if family is Family.IPV4 else 'ip6'} {table}` shows them"


def family_in(text: str) -> Family | None:
    """Return the family of an iptables-save dump, judged by its content; None if the content does not show it."""
    for line in _lines(text):
        if line.startswith("# Generated by"):
            return Family.IPV6 if "ip6tables" in line else Family.IPV4
        if not line.startswith("-A"):
            continue
        bare = _COMMENT.sub("", line)
        if re.search(r" (?:-s|-d|--to-destination|--mask) (?:\[?[0-9a-f]*:|\S*::)", bare) or "icmp6" in bare:
            return Family.IPV6
        if re.search(r" (?:-s|-d|--to-destination|--mask) \d+\.\d+\.\d+\.\d+", bare) or "icmp-" in bare:
            return Family.IPV4
    return None


def is_dump(text: str) -> bool:
    """Whether the text looks like the output of iptables-save."""
    for line in _lines(text):
        if line.strip() and not line.startswith("#"):
            return line.startswith("*")
    return "# Generated by ip" in text or _INCOMPATIBLE.search(text) is not None


def format_ruleset(ruleset: Ruleset) -> str:
    """Return the ruleset as a script that `iptables-restore` loads into an empty kernel.

    Chains are sorted and rules grouped by chain: iptables-nft 1.8 needs ten times as long for any other order.
    """
    lines: list[str] = []
    for table in sorted({*ruleset.tables, *(name.table for name in ruleset.chains)}):
        chains = sorted((n.chain, c) for n, c in ruleset.chains.items() if n.table == table)
        lines.append(f"*{table}")
        lines += (f":{name} {chain.policy or '-'} [0:0]" for name, chain in chains)
        lines += (f"-A {name} {rule.line}".rstrip() for name, chain in chains for rule in chain.rules)
        lines.append("COMMIT")
    return "".join(f"{line}\n" for line in lines)


def _lines(text: str) -> Iterator[str]:
    """Yield the lines of a text one by one: a list of all would take as much memory again."""
    start = 0
    while (end := text.find("\n", start)) >= 0:
        yield text[start:end]
        start = end + 1
    yield text[start:]


def _read_line(chains: dict[str, Chain], line: str) -> bool:
    if line[0] == ":":
        declared = _CHAIN.match(line)
        if not declared:
            return False
        policy = None if declared.group(2) == "-" else declared.group(2)
        chains.setdefault(declared.group(1), Chain()).policy = policy
        return True
    if line[0] == "[":
        line = _COUNTERS.sub("", line, count=1)
    appended = _APPEND.match(line)
    if not appended:
        return False
    name, rule = appended.groups()
    chain = chains.get(name)
    if chain is None:
        chain = chains[name] = Chain()
    chain.rules.append(read_rule(rule))
    return True


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text


def _single_spaced(spec: str) -> str:
    """Fold runs of spaces outside quotes."""
    parts = re.split(r'("(?:[^"\\]|\\.)*")', spec)
    return "".join(part if part.startswith('"') else re.sub(r" {2,}", " ", part) for part in parts)
