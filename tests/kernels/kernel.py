"""A small kernel in memory: it executes what `iptables-restore --noflush` is fed, and prints what `iptables-save` does.

Each table is committed whole or not at all, as the real one does it, and it refuses what the real one refuses: a jump
to a chain that is not there, deleting one that is in use or does not exist, a rule to delete that is not there.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field

from rulegen.languages.iptables.ruleset import read_rule, target

BUILT_IN = {
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
}
VERDICTS = {"ACCEPT", "DROP", "RETURN", "REJECT", "MARK", "MASQUERADE", "DNAT", "TPROXY", "LOG", ""}


class RefusedError(Exception):
    """The script has a line that the kernel does not take."""


def _empty() -> dict[str, dict[str, list[str]]]:
    return {table: {chain: [] for chain in chains} for table, chains in BUILT_IN.items()}


@dataclass
class Kernel:
    """One family's tables: chains by name, rules as lines behind `-A CHAIN`."""

    tables: dict[str, dict[str, list[str]]] = field(default_factory=_empty)

    def restore(self, script: str) -> None:
        """Execute a script, commit by commit."""
        for commit in commits(script):
            self.commit(commit)

    def commit(self, lines: list[str]) -> None:
        """Execute one table's lines, all or none."""
        name = lines[0][1:]
        chains = deepcopy(self.tables[name])
        for line in lines[1:]:
            self._line(chains, line)
        for rules in chains.values():
            for rule in rules:
                goes_to = target(read_rule(rule))
                if goes_to not in VERDICTS and goes_to not in chains:
                    raise RefusedError(f"{name}: no chain {goes_to}: {rule}")
        self.tables[name] = chains

    def _line(self, chains: dict[str, list[str]], line: str) -> None:
        word, _, rest = line.partition(" ")
        chain, _, rule = rest.partition(" ")
        if word.startswith(":"):
            chains[word[1:]] = []
            return
        if chain not in chains:
            raise RefusedError(f"no chain {chain}: {line}")
        match word:
            case "-A":
                chains[chain].append(printed(rule))
            case "-I":
                chains[chain].insert(0, printed(rule))
            case "-D":
                if printed(rule) not in chains[chain]:
                    raise RefusedError(f"no such rule: {line}")
                chains[chain].remove(printed(rule))
            case "-X":
                if chains[chain] or any(target(read_rule(r)) == chain for rules in chains.values() for r in rules):
                    raise RefusedError(f"chain in use: {line}")
                del chains[chain]
            case _:
                raise RefusedError(f"unknown: {line}")

    def save(self) -> str:
        """Return what `iptables-save` prints."""
        lines = []
        for table, chains in self.tables.items():
            lines.append(f"*{table}")
            lines += [f":{chain} {'ACCEPT' if chain in BUILT_IN[table] else '-'} [0:0]" for chain in chains]
            lines += [f"-A {chain} {rule}".rstrip() for chain, rules in chains.items() for rule in rules]
            lines.append("COMMIT")
        return "\n".join(lines) + "\n"


def commits(script: str) -> list[list[str]]:
    """Return the lines of each commit of a script, the table's line first."""
    groups: list[list[str]] = []
    for line in script.splitlines():
        if line.startswith("*"):
            groups.append([line])
        elif line != "COMMIT":
            groups[-1].append(line)
    return groups


def printed(rule: str) -> str:
    """Return the rule as the kernel prints it: addresses and protocol, then the matches, the comment with them."""
    if not rule.startswith("-m comment --comment "):
        return rule
    read = read_rule(rule)
    comment = rule[: len(rule) - len(read.spec)].strip()
    words = read.spec.split(" ")
    at = 0
    while at < len(words) and words[at] in {"!", "-s", "-d", "-i", "-p"}:
        at += 3 if words[at] == "!" else 2
    return " ".join([*words[:at], comment, *words[at:]])
