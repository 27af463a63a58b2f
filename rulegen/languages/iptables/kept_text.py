"""The text by which a rule is deleted: `iptables` compares comments too, so it must be the text that was written.

What decides about the text of a rule may have changed since: how many chains there are, the name of a port, whose
comment it was. So the fragments that the agent keeps hold the rules of shared chains as the kernel has them.
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
"""Blocks that stand in the kernel with other comments than ours: a list entry for each copy."""


def carried(before: RulesFragment, after: RulesFragment) -> RulesFragment:
    """Return what an owner wants now, with the rules that stay where they are as its fragment of before has them."""
    had: defaultdict[BlockKey, list[Block]] = defaultdict(list)
    for block in before.blocks:
        had[_key(block)].append(block)
    return _with_blocks(after, [_kept(block, had[_key(block)]) for block in after.blocks])


def adopted(fragment: RulesFragment, there: Copies) -> RulesFragment:
    """Return a fragment with the rules that stand in the kernel with other comments; they are taken out of `there`.

    Of several copies, an owner gets the one that bears its comment, where there is such a copy.
    """
    return _with_blocks(fragment, [_taken(block, there.get(_key(block))) for block in fragment.blocks])


def written(fragment: RulesFragment, comments: Comments) -> RulesFragment:
    """Return a fragment with the rules of shared chains as they were written while these comments were."""
    blocks = [replace(block, rules=tuple(settled(rule, comments) for rule in block.rules)) for block in fragment.blocks]
    return _with_blocks(fragment, blocks)


def copies_of(printed: Mapping[BlockKey, BlockValue]) -> Copies:
    """Return the copies of blocks, for `adopted` to take from."""
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
