"""All that IPVS mode keeps on a node, as the tools print it: to compare, to spoil, and to take away."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from integration import saves
from integration.lab.hosts import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

    from integration.lab.hosts import Family, Host

VARIANT = "ipvs"
DEVICE = "kube-ipvs0"
COMMENT = re.compile(r' -m comment --comment ("(?:[^"\\]|\\.)*"|\S+)')


@dataclass(frozen=True, slots=True)
class State:
    """What a node has, without what means nothing: comments, hash sizes, order between Services.

    Attributes:
        rules: Lines of each family's rules, with their table.
        servers, sets, addresses: Lines of `ipvsadm -Sn`, `ipset save` and `ip -o addr`.
    """

    rules: dict[Family, Counter[tuple[str, str]]]
    servers: frozenset[str]
    sets: frozenset[str]
    addresses: frozenset[str]


def observe(node: Host) -> State:
    """Return all of it."""
    texts = saves.save(node, VARIANT)
    rules = {
        family: Counter((line.table, COMMENT.sub("", line.text)) for line in saves.lines(text))
        for family, text in texts.items()
    }
    return State(rules, frozenset(_servers(node)), frozenset(_sets(node)), frozenset(_addresses(node)))


def wipe(node: Host) -> None:
    """Take all of it off a node, a proxy's and others'."""
    saves.wipe(node, VARIANT)
    node.run(["sh", "-c", f"ipvsadm -C; ipset flush; ipset destroy; ip link del {DEVICE}; true"]).check()


def spoil(node: Host, random: Random, share: float) -> None:
    """Lose about a share of everything, change some of what stays, leave strangers in our sets and on our device."""
    texts = saves.save(node, VARIANT)
    for family in FAMILIES:
        lines = list(saves.lines(texts[family]))
        kept = [line for line in lines if not (line.is_proxys and line.is_rule) or random.random() > share]
        texts[family] = saves.joined(kept)
    saves.load(node, VARIANT, texts)
    script = []
    for line in sorted(_servers(node)):
        words = line.split()
        named = " ".join(words[1:3])
        if words[0] == "-A" and random.random() < share:
            script.append(f"ipvsadm -D {named}")
        elif words[0] == "-A" and random.random() < share:
            script.append(f"ipvsadm -E {named} -s {random.choice(['wlc', 'sh', 'rr -p 77'])}")
        elif words[0] == "-a" and random.random() < share:
            script.append(f"ipvsadm -{random.choice(['d', 'e'])} {named} -r {words[4]}")
        elif words[0] == "-a" and random.random() < share:
            script.append(f"ipvsadm -e {named} -r {words[4]} -m -w {random.choice([0, 5])}")
    for line in sorted(_sets(node)):
        verb, name, entry, *_ = line.split()
        if verb == "add" and random.random() < share:
            script.append(f"ipset del {name} {entry}")
        elif verb == "create" and "bitmap" in line and random.random() < share:
            script.append(f"ipset -exist add {name} {random.randrange(1, 65536)}")
        elif verb == "create" and random.random() < share:
            script.append(f"ipset flush {name}; ipset destroy {name}")
    script += [f"ip addr del {line} dev {DEVICE}" for line in sorted(_addresses(node)) if random.random() < share]
    script.append(f"ip addr add 10.96.255.254/32 dev {DEVICE}")
    # Some of it meets what is gone already, as an edit of a server that was lost with its virtual one.
    node.run(["sh", "-c", "\n".join([*script, "true"])]).check()


def weights(node: Host) -> dict[tuple[str, str], tuple[int, int]]:
    """Return weight and number of connections of each real server, by its virtual server's address and its own."""
    collected = {}
    virtual = ""
    for line in node.run(["ipvsadm", "-Ln"]).check().stdout.splitlines():
        words = line.split()
        if words and words[0] in {"TCP", "UDP", "SCTP"}:
            virtual = words[1]
        elif words and words[0] == "->" and words[1][0].isalnum() and words[3].isdigit():
            collected[virtual, words[1]] = int(words[3]), int(words[4]) + int(words[5])
    return collected


def _servers(node: Host) -> Iterable[str]:
    return node.run(["ipvsadm", "-Sn"]).check().stdout.splitlines()


def _sets(node: Host) -> Iterable[str]:
    for line in node.run(["ipset", "save"]).check().stdout.splitlines():
        yield re.sub(r" (hashsize|bucketsize|initval) \S+", "", line)


def _addresses(node: Host) -> Iterable[str]:
    printed = node.run(["sh", "-c", f"ip -o addr show dev {DEVICE} 2>/dev/null || true"]).check().stdout
    return (line.split()[3] for line in printed.splitlines() if " scope link " not in line)
