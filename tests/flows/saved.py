"""The text of iptables-save, read for walking: an own reader, which shares nothing with the compiler's.

It is strict: a word that it does not know is an error, for a rule that is half understood is not understood.
Source: iptables(8), iptables-extensions(8).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from ipaddress import ip_network

# How many arguments a word takes, by the module that brings it; "" are the words of the tool itself.
ARITY = {
    "": {"-s": 1, "-d": 1, "-i": 1, "-o": 1, "-p": 1, "-m": 1, "-j": 1},
    "comment": {"--comment": 1},
    "tcp": {"--dport": 1, "--sport": 1},
    "udp": {"--dport": 1, "--sport": 1},
    "sctp": {"--dport": 1, "--sport": 1},
    "addrtype": {"--src-type": 1, "--dst-type": 1},
    "mark": {"--mark": 1},
    "conntrack": {"--ctstate": 1},
    "statistic": {"--mode": 1, "--probability": 1},
    "recent": {
        "--rcheck": 0,
        "--set": 0,
        "--reap": 0,
        "--rsource": 0,
        "--seconds": 1,
        "--name": 1,
        "--mask": 1,
    },
    "nfacct": {"--nfacct-name": 1},
}
TARGETS = {
    "ACCEPT": {},
    "DROP": {},
    "RETURN": {},
    "REJECT": {"--reject-with": 1},
    "MARK": {"--set-xmark": 1},
    "DNAT": {"--to-destination": 1},
    "MASQUERADE": {"--random-fully": 0},
}
ADDRESS_TYPES = {"LOCAL"}
MASKS = {"255.255.255.255", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}
STATES = {"NEW", "ESTABLISHED", "RELATED", "INVALID", "DNAT"}


class UnknownRuleError(AssertionError):
    """A line that cannot be walked: the test that meets it fails."""


@dataclass(frozen=True, slots=True)
class Match:
    """One condition of a rule: the word that asks for it, what it asks, and whether it asks for the opposite.

    The value is an `ip_network`, a text, a number, a pair (value, mask), a set of words, a `Fraction`, or for `recent`
    the name of the list and the seconds (None: put the address on the list).
    """

    word: str
    value: object
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: its conditions, all of which must hold; its target, empty for none; and the target's own value."""

    text: str
    matches: tuple[Match, ...]
    target: str = ""
    value: object = None


@dataclass(slots=True)
class Saved:
    """All tables of one family: the rules of each chain by (table, chain), and the policies of the built-in ones."""

    rules: dict[tuple[str, str], list[Rule]] = field(default_factory=dict)
    policies: dict[tuple[str, str], str] = field(default_factory=dict)


def read(text: str) -> Saved:
    """Return what the text says; any doubt is an UnknownRuleError."""
    saved, table = Saved(), ""
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        if line.startswith("*"):
            table = line[1:]
        elif line == "COMMIT":
            table = ""
        elif table and line.startswith(":"):
            chain, policy, _counters = line[1:].split(" ")
            saved.rules[table, chain] = []
            if policy != "-":
                saved.policies[table, chain] = policy
        elif table and line.startswith("-A "):
            _, chain, *_ = line.split(" ", 2)
            if (table, chain) not in saved.rules:
                raise UnknownRuleError(f"{line}: no chain {chain} in table {table}")
            saved.rules[table, chain].append(read_rule(line))
        else:
            raise UnknownRuleError(f"not a line of iptables-save: {line}")
    if table:
        raise UnknownRuleError(f"table {table} has no COMMIT")
    _check_targets(saved)
    return saved


def _check_targets(saved: Saved) -> None:
    """A jump must lead to a chain of its own table, and never to a built-in one."""
    for (table, _), rules in saved.rules.items():
        for rule in rules:
            if rule.target and rule.target not in TARGETS and (table, rule.target) not in saved.rules:
                raise UnknownRuleError(f"{rule.text}: no target {rule.target} in table {table}")
            if (table, rule.target) in saved.policies:
                raise UnknownRuleError(f"{rule.text}: jumps to a built-in chain")


def read_rule(line: str) -> Rule:
    """Return the rule of a line that begins with -A CHAIN."""
    try:
        words = shlex.split(line)[2:]
    except ValueError as error:
        raise UnknownRuleError(f"{line}: {error}") from None
    target, value, reported = "", None, []
    for negated, word, arguments, module in _said(line, words):
        if word == "-j":
            target, value = arguments
        elif word != "-m":
            reported.append((module, negated, word, arguments))
    return Rule(line, tuple(_matches(line, reported)), target, value)


def _said(line: str, words: list[str]) -> Iterator[tuple[bool, str, list, str]]:
    """Yield (negated, word, arguments, module) for each word of a rule."""
    rest, module, negated = iter(words), "", False
    for word in rest:
        if word == "!":
            negated = True
            continue
        owner = "" if word in ARITY[""] else module
        if word not in ARITY[owner]:
            raise UnknownRuleError(f"{line}: unknown word {word!r}")
        arguments = [_next(line, rest) for _ in range(ARITY[owner][word])]
        if word == "-m":
            module = arguments[0]
            if module not in ARITY:
                raise UnknownRuleError(f"{line}: unknown module {module!r}")
        if word == "-j":
            yield negated, word, [arguments[0], _target_value(line, arguments[0], list(rest))], module
            return
        yield negated, word, arguments, owner or module
        negated = False


def _next(line: str, rest: Iterator[str]) -> str:
    try:
        return next(rest)
    except StopIteration:
        raise UnknownRuleError(f"{line}: ends too early") from None


def _target_value(line: str, target: str, words: list[str]) -> object:
    options = TARGETS.get(target, {})
    if any(word not in options for word in words[:1]) or len(words) > 1 + max(options.values(), default=0):
        raise UnknownRuleError(f"{line}: unknown words behind {target}: {words}")
    match target, words:
        case "MARK", [_, value]:
            return _masked(value)
        case "DNAT", [_, value]:
            return value
        case (("MARK" | "DNAT"), _):
            raise UnknownRuleError(f"{line}: {target} does not say what to do")
    return None


def _matches(line: str, reported: list[tuple[str, bool, str, list]]) -> Iterator[Match]:
    """Turn words into conditions; all words of `recent` are one."""
    recent: dict[str, list] = {}
    for module, negated, word, arguments in reported:
        if module == "recent":
            recent |= {word: arguments, "negated": [negated or recent.get("negated", [False])[0]]}
        elif word not in {"--comment", "--mode"}:
            yield Match(word, _value(line, word, arguments[0]), negated)
    if recent:
        word = "--rcheck" if "--rcheck" in recent else "--set"
        needed = {"--name", "--rsource", "--mask"} | ({"--seconds"} if word == "--rcheck" else {"--set"})
        if not needed <= recent.keys() or {"--set", "--rcheck"} <= recent.keys() or recent["--mask"][0] not in MASKS:
            raise UnknownRuleError(f"{line}: cannot follow this use of recent")
        seconds = int(recent["--seconds"][0]) if word == "--rcheck" else None
        yield Match(word, (recent["--name"][0], seconds), recent["negated"][0])


def _value(line: str, word: str, text: str) -> object:
    match word:
        case "-s" | "-d":
            return ip_network(text)
        case "--dport" | "--sport":
            return int(text)
        case "--mark":
            return _masked(text)
        case "--probability":
            return Fraction(round(Fraction(text) * 2**31), 2**31)  # the kernel draws 31 random bits
        case "--ctstate":
            return _known(line, frozenset(text.split(",")), STATES)
        case "--src-type" | "--dst-type":
            return _known(line, frozenset(text.split(",")), ADDRESS_TYPES)
        case _:
            return text


def _known(line: str, words: frozenset[str], vocabulary: set[str]) -> frozenset[str]:
    if words - vocabulary:
        raise UnknownRuleError(f"{line}: unknown {sorted(words - vocabulary)}")
    return words


def _masked(text: str) -> tuple[int, int]:
    """Return value and mask of 0x4000/0x4000; without a mask all bits count."""
    value, _, mask = text.partition("/")
    return int(value, 0), int(mask, 0) if mask else 0xFFFFFFFF
