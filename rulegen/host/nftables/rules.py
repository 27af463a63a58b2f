"""Rules: from the statements of the language to the expressions of the kernel."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from rulegen.host.nftables.anonymous import AnonymousSets, ordered, value_types
from rulegen.host.nftables.datatypes import Datatype, datatype
from rulegen.host.nftables.kernel.expressions import (
    DESTINATION_NAT,
    CounterExpr,
    CtExpr,
    DynsetExpr,
    ImmediateExpr,
    LookupExpr,
    MasqueradeExpr,
    MetaExpr,
    NatExpr,
    RejectExpr,
)
from rulegen.host.nftables.loads import (
    FIRST_REGISTER,
    Load,
    NotWrittenError,
    compared,
    load,
    load_constant,
    needs_protocol,
)
from rulegen.host.nftables.rejects import TCP_RESET, reject_codes
from rulegen.host.nftables.sets import kernel_verdict
from rulegen.languages.nftables.expressions import (
    AnonymousMap,
    AnonymousSet,
    Bits,
    Literal,
    MapLookup,
    Meta,
    SetReference,
    VerdictCode,
)
from rulegen.languages.nftables.state import VERDICT
from rulegen.languages.nftables.statements import (
    Assign,
    Compare,
    CountPackets,
    Dnat,
    MasqueradeSource,
    RejectPacket,
    UpdateSet,
    VerdictLookup,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rulegen.host.nftables.kernel.expressions import Expression as KernelExpression
    from rulegen.host.nftables.kernel.objects import KernelSet, NftMessage, TableName
    from rulegen.languages.nftables.expressions import Expression
    from rulegen.languages.nftables.state import NamedSet
    from rulegen.languages.nftables.statements import NftRule, NftStatement

_MASQUERADE_FLAGS: Final = {"random": 4, "persistent": 8, "fully-random": 16}
_OPERATIONS: Final = {"add": 0, "update": 1}
_INVERTED = 1
_MARK = 3
_HAS_ADDRESS, _HAS_PORT = 1, 2
_PORT_REGISTER = FIRST_REGISTER + 4
_TCP = 6


class RuleWriter:
    """Turns the rules of one table into expressions of the kernel, for one transaction."""

    def __init__(self, table: TableName, find: Callable[[str], NamedSet | None]) -> None:
        """Write rules of a table; `find` returns a set that the table has, or will have."""
        self._table, self._find = table, find
        self._anonymous = AnonymousSets(table)
        self._requests: list[NftMessage] = []
        self._is_ipv4 = table.family == socket.AF_INET
        self._address = datatype("ipv4_addr" if self._is_ipv4 else "ipv6_addr")

    def written(self, rule: NftRule) -> tuple[list[NftMessage], list[KernelExpression]]:
        """Return the requests that make the anonymous sets of a rule, and its expressions.

        Raises:
            ValueError: It has a statement that rulegen does not write.
        """
        self._requests, known = [], 0
        expressions: list[KernelExpression] = []
        for statement in rule.statements:
            content, protocol = self._statement(statement)
            if protocol is not None and protocol != known:
                place = 0 if isinstance(statement, RejectPacket) else len(expressions)  # as nft does
                expressions[place:place] = needs_protocol(protocol)
                known = protocol
            known = _protocol_of(statement) or known
            expressions += content
        return self._requests, expressions

    def _statement(self, statement: NftStatement) -> tuple[Sequence[KernelExpression], int | None]:
        """Return the expressions of a statement, and the protocol that it needs."""
        match statement:
            case Compare():
                return self._compare(statement)
            case VerdictLookup(key, target):
                loaded = load(key)
                return self._verdict_lookup(loaded, target), loaded.requires
            case VerdictCode():
                return [ImmediateExpr(0, kernel_verdict(statement))], None
            case Assign():
                return self._assign(statement)
            case Dnat(to, port):
                return self._dnat(statement, to, port)
            case MasqueradeSource(flags) if _MASQUERADE_FLAGS.keys() >= flags:
                return [MasqueradeExpr(sum(_MASQUERADE_FLAGS[flag] for flag in flags) or None)], None
            case RejectPacket(code):
                kind, number = reject_codes(code, is_ipv4=self._is_ipv4)
                return [RejectExpr(kind, number)], _TCP if kind == TCP_RESET else None
            case CountPackets():
                return [CounterExpr()], None
            case UpdateSet():
                return self._update(statement)
            case _:
                raise NotWrittenError(statement)

    def _compare(self, whole: Compare) -> tuple[Sequence[KernelExpression], int | None]:
        right, operator = whole.right, whole.operator
        loaded = load(whole.left)
        if isinstance(right, SetReference | AnonymousSet):
            if operator not in {"==", "!="}:
                raise NotWrittenError(whole)
            name, set_id = right.name if isinstance(right, SetReference) else "", None
            if isinstance(right, SetReference):
                self._known(right, loaded)
            else:
                made = self._made(self._anonymous.of_set(_single(whole, loaded), right))
                name, set_id = made.name, made.set_id
            flags = _INVERTED if operator == "!=" else 0
            return (*loaded.expressions, LookupExpr(name, loaded.register, None, flags, set_id)), loaded.requires
        _single(whole, loaded)
        return compared(whole.left, loaded, right, operator), loaded.requires

    def _verdict_lookup(self, loaded: Load, target: SetReference | AnonymousMap) -> tuple[KernelExpression, ...]:
        if isinstance(target, SetReference):
            if self._known(target, loaded).data != (VERDICT,):
                raise ValueError(f"map {target.name[:60]!r} has no verdicts")
            return *loaded.expressions, LookupExpr(target.name, loaded.register, 0, 0)
        made = self._made(self._anonymous.of_verdicts(_single(target, loaded), target))
        return *ordered(loaded, made), LookupExpr(made.name, loaded.register, 0, 0, made.set_id)

    def _map_lookup(self, lookup: MapLookup, single: Datatype) -> Load:
        """Return how the value of a map is loaded: one of this type, maybe with a port."""
        loaded, target, register = load(lookup.key), lookup.map, FIRST_REGISTER
        if isinstance(target, SetReference):
            types = tuple(datatype(name) for name in self._known(target, loaded).data)
            looked_up = [*loaded.expressions, LookupExpr(target.name, loaded.register, register, 0)]
        else:
            types = value_types(target, single, datatype("inet_service"))
            made = self._made(self._anonymous.of_values(_single(lookup, loaded), target, types))
            looked_up = [*ordered(loaded, made), LookupExpr(made.name, loaded.register, register, 0, made.set_id)]
        if not types or types[0].length != single.length:
            raise NotWrittenError(lookup)
        return Load(tuple(looked_up), types, register, loaded.requires)

    def _assign(self, whole: Assign) -> tuple[Sequence[KernelExpression], int | None]:
        if whole.key.key != "mark":
            raise NotWrittenError(whole)
        kind = datatype("mark")
        match whole.value:
            case Literal() | Bits():
                loaded = load_constant(whole.value, kind, FIRST_REGISTER)
            case MapLookup():
                loaded = self._map_lookup(whole.value, kind)
            case value:
                loaded = load(value)
        if _single(whole, loaded).length != kind.length:
            raise NotWrittenError(whole)
        is_packet = isinstance(whole.key, Meta)
        setter = MetaExpr(None, _MARK, FIRST_REGISTER) if is_packet else CtExpr(None, _MARK, None, FIRST_REGISTER)
        return (*loaded.expressions, setter), loaded.requires

    def _dnat(
        self, whole: Dnat, to: Expression, port: Expression | None
    ) -> tuple[Sequence[KernelExpression], int | None]:
        if isinstance(to, MapLookup):
            loaded = self._map_lookup(to, self._address)
            if port is not None or len(loaded.types) > 2:
                raise NotWrittenError(whole)
            register = FIRST_REGISTER + loaded.types[0].padded // 4 if len(loaded.types) == 2 else None
            return (*loaded.expressions, self._nat(register)), loaded.requires
        address = load_constant(to, self._address, FIRST_REGISTER).expressions
        if port is None:
            return (*address, self._nat(None)), None
        at_port = load_constant(port, datatype("inet_service"), _PORT_REGISTER).expressions
        return (*address, *at_port, self._nat(_PORT_REGISTER)), None

    def _nat(self, port: int | None) -> NatExpr:
        flags = _HAS_ADDRESS | (0 if port is None else _HAS_PORT)
        first = FIRST_REGISTER
        return NatExpr(DESTINATION_NAT, self._table.family, first, first, port, port, flags)

    def _update(self, whole: UpdateSet) -> tuple[Sequence[KernelExpression], int | None]:
        if whole.operator not in _OPERATIONS:
            raise NotWrittenError(whole)
        key = load(whole.key)
        self._known(whole.set, key)
        written, register = [*key.expressions], None
        if whole.data is not None:
            register = FIRST_REGISTER + sum(each.padded for each in key.types) // 4
            written += load(whole.data, register).expressions
        operation, timeout_ms = _OPERATIONS[whole.operator], (whole.timeout_s or 0) * 1000
        written.append(DynsetExpr(whole.set.name, operation, FIRST_REGISTER, register, timeout_ms, 0))
        return written, key.requires

    def _known(self, reference: SetReference, loaded: Load) -> NamedSet:
        """Return a set of the table; its keys must be what the rule looks up."""
        name = reference.name
        known = self._find(name)
        if known is None:
            raise ValueError(f"no set or map {name[:60]!r} in the table")
        if [datatype(each).length for each in known.key] != [each.length for each in loaded.types]:
            raise ValueError(f"the keys of {name[:60]!r} have other types")
        return known

    def _made(self, made: tuple[KernelSet, list[NftMessage]]) -> KernelSet:
        kernel_set, requests = made
        self._requests += requests
        return kernel_set


def _single(whole: object, loaded: Load) -> Datatype:
    if len(loaded.types) != 1:
        raise NotWrittenError(whole)
    return loaded.types[0]


def _protocol_of(statement: NftStatement) -> int | None:
    """Return the only protocol that packets have after a statement."""
    match statement:
        case Compare(Meta("l4proto"), Literal(text), "=="):
            return datatype("inet_proto").parse(text)[0]
        case _:
            return None
