"""Reading of one table over netlink: chains, rules, sets, and elements, without starting `nft`."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.errors import HostError
from rulegen.host.netlink.messages import attributes_of
from rulegen.host.nftables.kernel import elements, expressions
from rulegen.host.nftables.kernel.attributes import read_list, read_number, read_text, text
from rulegen.host.nftables.kernel.objects import GET_CHAIN, GET_ELEMENTS, GET_RULE, GET_SET, Hook, KernelSet, TableName

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rulegen.host.nftables.kernel.elements import KernelElement
    from rulegen.host.nftables.kernel.expressions import Expression
    from rulegen.host.nftables.kernel.transaction import NftSocket

_ATTEMPTS: Final = 20


class KernelRule(NamedTuple):
    """A rule as the kernel reports it."""

    handle: int
    expressions: tuple[Expression, ...]
    user_data: bytes = b""


class KernelTable(NamedTuple):
    """The content of a table.

    Attributes:
        chains: The hook of each chain; None for a chain without one.
        rules: The rules of each chain in order.
        sets: All sets and maps, also anonymous ones.
        elements: The elements of each set.
        generation: The generation of the rules of the namespace that was read.
    """

    chains: Mapping[str, Hook | None]
    rules: Mapping[str, tuple[KernelRule, ...]]
    sets: Mapping[str, KernelSet]
    elements: Mapping[str, tuple[KernelElement, ...]]
    generation: int


def read_table(
    link: NftSocket, table: TableName, has_elements: Callable[[KernelSet], bool] = lambda _set: True
) -> KernelTable:
    """Return the content of a table at one moment.

    Args:
        link: The socket.
        table: The table.
        has_elements: Whether the elements of a set are read; the others get none.

    Raises:
        HostError: It cannot be read, or changed all the time.
    """
    try:
        for _ in range(_ATTEMPTS):
            before = link.generation()
            try:
                content = _read(link, table, has_elements, before)
            except InterruptedError:
                continue
            except OSError as error:
                if error.errno != errno.ENOENT:  # a set that was deleted meanwhile
                    raise
                if link.generation() == before:
                    raise
                continue
            if link.generation() == before:
                return content
    except OSError as error:
        raise HostError(f"nf_tables: table {table.name} cannot be read: {error.strerror}") from None
    raise HostError(f"nf_tables: table {table.name} cannot be read: its rules change all the time")


def read_set(link: NftSocket, table: TableName, name: str) -> KernelSet | None:
    """Return a set without its elements; None if there is none.

    Raises:
        HostError: It cannot be read.
    """
    try:
        content = link.ask(GET_SET, table.family, text(1, table.name) + text(2, name))
    except OSError as error:
        raise HostError(f"nf_tables: set {name} cannot be read: {error.strerror}") from None
    return None if content is None else _set(content)


def _read(link: NftSocket, table: TableName, has_elements: Callable[[KernelSet], bool], generation: int) -> KernelTable:
    name = text(1, table.name)
    chains = {
        read_text(chain[3]): _hook(chain)
        for chain in link.dump(GET_CHAIN, table.family, name)
        if read_text(chain[1]) == table.name
    }
    rules: dict[str, list[KernelRule]] = {chain: [] for chain in chains}
    for rule in link.dump(GET_RULE, table.family, name):
        if read_text(rule[1]) == table.name:
            content = KernelRule(read_number(rule[3]), expressions.decode(rule.get(4, b"")), rule.get(7, b""))
            rules.setdefault(read_text(rule[2]), []).append(content)
    sets = [_set(each) for each in link.dump(GET_SET, table.family, name) if read_text(each[1]) == table.name]
    return KernelTable(
        chains,
        {chain: tuple(listed) for chain, listed in rules.items()},
        {each.name: each for each in sets},
        {each.name: _elements(link, table, each.name) if has_elements(each) else () for each in sets},
        generation,
    )


def _elements(link: NftSocket, table: TableName, name: str) -> tuple[KernelElement, ...]:
    request = text(1, table.name) + text(2, name)
    answers = link.dump(GET_ELEMENTS, table.family, request)
    return tuple(element for answer in answers for element in elements.decode(answer.get(3, b"")))


def _hook(chain: Mapping[int, bytes]) -> Hook | None:
    if 4 not in chain:
        return None
    hook = attributes_of(chain[4])
    priority = int.from_bytes(hook[2], "big", signed=True)
    return Hook(read_text(chain.get(7, b"")), read_number(hook[1]), priority, read_number(chain.get(5)))


def _set(content: Mapping[int, bytes]) -> KernelSet:
    description = attributes_of(content.get(9, b""))
    fields = (read_number(attributes_of(field).get(1)) for field in read_list(description.get(2, b"")))
    return KernelSet(
        name=read_text(content[2]),
        flags=read_number(content.get(3)),
        key_type=read_number(content.get(4)),
        key_length=read_number(content.get(5)),
        data_type=read_number(content[6]) if 6 in content else None,
        data_length=read_number(content[7]) if 7 in content else None,
        fields=tuple(fields),
        size=read_number(description[1]) if 1 in description else None,
        timeout_ms=read_number(content[11]) if 11 in content else None,
        gc_interval_ms=read_number(content[12]) if 12 in content else None,
        user_data=content.get(13, b""),
    )
