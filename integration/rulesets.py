"""What a variant keeps in the kernel, its rules of iptables or its table of nftables: to compare, spoil and wipe."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from integration import saves
from integration.blackbox import VARIANT_ROWS
from integration.lab.hosts import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from integration.blackbox import Variant
    from integration.lab.hosts import Family, Host

Ruleset = dict["Family", Counter[tuple[str, str]]]
"""Of each family, lines with the table or chain that they are in."""

COMMENT = re.compile(r' -m comment --comment ("(?:[^"\\]|\\.)*"|\S+)')
_FAMILIES: dict[str, Family] = {"ip": 4, "ip6": 6}
_WORDS = {family: word for word, family in _FAMILIES.items()}


def observe(node: Host, variant: Variant) -> Ruleset:
    """Return all of it: comments mean nothing, order between Services is free, a plan sees the rest."""
    if not VARIANT_ROWS[variant].table:
        return {
            family: Counter((line.table, COMMENT.sub("", line.text)) for line in saves.lines(text))
            for family, text in saves.save(node, variant).items()
        }
    results: Ruleset = {family: Counter() for family in FAMILIES}
    for kind, listed in _listed(node):
        place, elements = _named(listed), _elements(listed)
        rest = {name: value for name, value in listed.items() if name not in {"handle", "elem", "comment"}}
        if kind == "rule":  # rules are listed in order, which matters
            place += f" {sum(where.startswith(f'{place} ') for where, _ in results[_FAMILIES[listed['family']]])}"
        results[_FAMILIES[listed["family"]]].update([(place, json.dumps({kind: rest}, sort_keys=True))])
        results[_FAMILIES[listed["family"]]].update((place, json.dumps(element)) for element in elements)
    return results


def stamps(node: Host, variant: Variant) -> list[str]:
    """Return what a write of the same objects would change: the handles of a table of nftables."""
    assert VARIANT_ROWS[variant].table
    text = node.run(["nft", "-a", "-s", "list", "ruleset"]).check().stdout
    return [line for line in text.splitlines() if "# handle" in line]


def wipe(node: Host, variant: Variant) -> None:
    """Take all rules off a node, a proxy's and others'."""
    saves.wipe(node, variant)
    if VARIANT_ROWS[variant].table:
        tables = [f"{word} {row.table}" for word in _FAMILIES for row in VARIANT_ROWS.values() if row.table]
        text = "".join(f"add table {table}\ndelete table {table}\n" for table in tables)
        node.run(["nft", "-f", "-"], stdin=text).check()


def spoil(node: Host, variant: Variant, random: Random, how: str) -> None:
    """Lose half of it, or lose, change and invent some (`edited`)."""
    if VARIANT_ROWS[variant].table:
        commands = [*_half(node, random)] if how == "half" else [*_edits(node, random)]
        node.run(["nft", "-f", "-"], stdin="".join(f"{command}\n" for command in commands)).check()
        return
    texts = saves.save(node, variant)
    for family in FAMILIES:
        if how == "half":
            lines = list(saves.lines(texts[family]))
            kept = [line for line in lines if not (line.is_proxys and line.is_rule) or random.random() < 0.5]
            texts[family] = saves.joined(kept)
        else:
            texts[family] = saves.spoil(texts[family], random, count=random.randrange(1, 12))
    saves.load(node, variant, texts)


def _listed(node: Host) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield kind and description of each object in the tables of a proxy."""
    names = {row.table for row in VARIANT_ROWS.values()}
    for item in json.loads(node.run(["nft", "-j", "list", "ruleset"]).check().stdout)["nftables"]:
        ((kind, listed),) = item.items()
        if kind != "metainfo" and listed.get("table", listed.get("name")) in names and listed["family"] in _FAMILIES:
            yield kind, listed


def _named(listed: dict[str, Any]) -> str:
    return f"{listed.get('table', '')} {listed.get('chain', listed.get('name', ''))}"


def _elements(listed: dict[str, Any]) -> list[Any]:
    """Return the elements that packets have not added."""
    return [] if "timeout" in listed.get("flags", ()) else listed.get("elem", [])


def _losses(node: Host) -> Iterator[str]:
    """Yield the commands that delete each rule and each element, whatever refers to what."""
    for kind, listed in _listed(node):
        place = f"{listed['family']} {listed.get('table')}"
        if kind == "rule":
            yield f"delete rule {place} {listed['chain']} handle {listed['handle']}"
        for element in _elements(listed):
            key = element[0] if kind == "map" else element
            text = " . ".join(map(str, key["concat"])) if isinstance(key, dict) else key
            yield f"delete element {place} {listed['name']} {{ {text} }}"


def _half(node: Host, random: Random) -> Iterator[str]:
    yield from (command for command in _losses(node) if random.random() < 0.5)


def _edits(node: Host, random: Random) -> Iterator[str]:
    """Yield some losses, one of them the rules of a whole chain, and rules and chains of a stranger."""
    losses = list(_losses(node))
    yield from random.sample(losses, min(len(losses), random.randrange(1, 12)))
    chains = [(listed["family"], listed["table"], listed["name"]) for kind, listed in _listed(node) if kind == "chain"]
    yield f"insert rule {' '.join(random.choice(chains))} counter accept"
    yield f"add rule {' '.join(random.choice(chains))} tcp dport {random.randrange(1, 65536)} drop"
    family, table, _ = random.choice(chains)
    yield f"add chain {family} {table} stranger-{random.randrange(100)}"
