"""Keeps the text of written rules: `iptables` deletes a rule only by its whole text, comment included.

The comment of a rule may be different now: it depends on the number of chains, the name of a port, and the owner. So
the agent's fragments keep the rules of shared chains with the text that the kernel has.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from msgspec.structs import replace

from rulegen.languages.iptables.script import settled
from rulegen.languages.iptables.state import Block, BlockKey

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rulegen.languages.iptables.rules import Rule
    from rulegen.languages.iptables.script import Comments
    from rulegen.languages.iptables.state import BlockValue, RulesFragment

Copies = dict[BlockKey, list[tuple["Rule", ...]]]
"""Blocks that have other comments in the kernel; one list entry for each copy."""


def carried(before: RulesFragment, after: RulesFragment) -> RulesFragment:
    """Return the new fragment of an owner; rules that stay keep the text of the fragment before."""
    had: defaultdict[BlockKey, list[Block]] = defaultdict(list)
    for block in before.blocks:
        had[_key(block)].append(block)
    return _with_blocks(after, [_kept(block, had[_key(block)]) for block in after.blocks])


def adopted(fragment: RulesFragment, there: Copies) -> RulesFragment:
    """Return a fragment with the text that its rules have in the kernel, and remove these rules from `there`.

    Of several copies, the owner gets the one with its comment, if there is one.
    """
    return _with_blocks(fragment, [_taken(block, there.get(_key(block))) for block in fragment.blocks])


def written(fragment: RulesFragment, comments: Comments) -> RulesFragment:
    """Return a fragment whose rules in shared chains have the text that was written with these comments."""
    blocks = [replace(block, rules=tuple(settled(rule, comments) for rule in block.rules)) for block in fragment.blocks]
    return _with_blocks(fragment, blocks)


def copies_of(printed: Mapping[BlockKey, BlockValue]) -> Copies:
    """Return the copies of blocks, as `adopted` needs them."""
    return {key: list(value.copies) for key, value in printed.items()}


def _kept(block: Block, had: list[Block]) -> Block:
    if not had:
        return block
    old = had.pop(0)
    return old if old.place is block.place else block


def _taken(block: Block, copies: list[tuple[Rule, ...]] | None) -> Block:
    if not copies:
        return block
    comments = [rule.comment for rule in block.rules]
    at = next((at for at, copy in enumerate(copies) if [rule.comment for rule in copy] == comments), 0)
    return replace(block, rules=copies.pop(at))


def _with_blocks(fragment: RulesFragment, blocks: list[Block]) -> RulesFragment:
    changed: Iterator[bool] = (new is not old for new, old in zip(blocks, fragment.blocks, strict=True))
    return replace(fragment, blocks=tuple(blocks)) if any(changed) else fragment


def _key(block: Block) -> BlockKey:
    return BlockKey(block.name, tuple(rule.spec for rule in block.rules))
