"""From a model to the objects of its backend's languages, merged by owner; nothing here touches the host.

ClusterSnapshot ─ resolve ─► Model ─ compile, per Service ─► OwnedObjects ─ merge ─► desired
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from rulegen.compiler.tables import TABLES, Tables
from rulegen.languages.iptables.state import RulesFragment
from rulegen.languages.language import PrintScope

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rulegen.backends.backend import Backend
    from rulegen.languages.language import Objects, Print, Union
    from rulegen.model.services.ir import Model
    from rulegen.net import Family
    from rulegen.plan.fragments import OwnedObjects

Unions = dict[str, "Union"]
"""Desired objects of all owners in one family, by language."""


class Compiled(msgspec.Struct, frozen=True, kw_only=True):
    """A model as objects of its backend's languages.

    Attributes:
        fragments: By family, the node's first, then one for each Service in order of name.
        unions: By family and language, the merged objects.
        counts: Whether rules have nfacct counters.
        tables: The known languages and backends.
    """

    model: Model
    backend: Backend
    fragments: Mapping[Family, Sequence[OwnedObjects]]
    unions: Mapping[Family, Unions]
    counts: bool
    tables: Tables = TABLES

    def contents(self, language: str, family: Family) -> list[Any]:
        """Return the fragments' objects of one language; fragments without any are omitted."""
        wanted = (fragment.objects.get(language) for fragment in self.fragments[family])
        return [content for content in wanted if content is not None]

    @property
    def requested(self) -> frozenset[str]:
        """The languages with objects that the mode writes only because a Service asks for the proxy."""
        wanted = self.backend.on_request
        return frozenset(name for name in wanted if any(self.contents(name, family) for family in self.fragments))

    def rules(self, family: Family) -> list[RulesFragment]:
        """Return the fragments that are rules."""
        return [
            content
            for fragment in self.fragments[family]
            for content in fragment.objects.values()
            if isinstance(content, RulesFragment)
        ]

    def objects(self, language: str) -> Objects:
        """Return all objects of one language, with and without a family."""
        objects = dict(self.backend.compile_host(self.model).get(language, {}))
        for unions in self.unions.values():
            if language in unions:
                objects.update(unions[language].objects())
        return objects


def printed(compiled: Compiled) -> Iterator[Print]:
    """Yield the desired state in the format of the standard tools, language by language."""
    for name, language in compiled.tables.languages.items():
        if name in compiled.backend.languages or name in compiled.requested:
            contents = {family: compiled.contents(name, family) for family in compiled.fragments}
            yield from language.printed(
                PrintScope(node=compiled.model.node_name, contents=contents, objects=compiled.objects(name))
            )


def merge(fragments: Iterable[OwnedObjects], tables: Tables) -> Unions:
    """Return the merged objects of the fragments of one family, by language."""
    unions: Unions = {name: language.union() for name, language in tables.languages.items()}
    for fragment in fragments:
        put(unions, None, fragment)
    return unions


def put(unions: Unions, before: OwnedObjects | None, after: OwnedObjects | None) -> None:
    """Replace one owner's fragment by another; None for no fragment. The cost depends on the size of both."""
    owner = (before or after).owner if before or after else ""  # type: ignore[union-attr]
    had, has = (fragment.objects if fragment is not None else {} for fragment in (before, after))
    for language in {**had, **has}:
        unions[language].replace(owner, had.get(language), has.get(language))


def compile_model(model: Model, mode: str, *, counts: bool, tables: Tables = TABLES) -> Compiled:
    """Return the fragments of every family that the model has.

    Raises:
        ConfigError: The mode has no backend.
    """
    backend = tables.backend(mode)
    fragments, unions = {}, {}
    for family, node in model.nodes.items():
        own = [backend.compile_service(service, node, counts=counts) for service in model.services.values()]
        merged = merge(own, tables)
        first = backend.compile_node(node, counts=counts, filled=backend.filled(merged, {}))
        put(merged, None, first)
        fragments[family], unions[family] = [first, *own], merged
    return Compiled(model=model, backend=backend, fragments=fragments, unions=unions, counts=counts, tables=tables)


def with_held(compiled: Compiled, fragments: Iterable[OwnedObjects]) -> Compiled:
    """Return the desired state, with the observed state of Services that are left out, see `pinned`."""
    by_family: dict[Family, list[OwnedObjects]] = {family: [] for family in compiled.fragments}
    for fragment in fragments:
        by_family[fragment.family].append(fragment)
    parts, unions = {}, {}
    for family, (_, *own) in compiled.fragments.items():
        merged = merge([*own, *by_family[family]], compiled.tables)
        node, backend = compiled.model.nodes[family], compiled.backend
        first = backend.compile_node(node, counts=compiled.counts, filled=backend.filled(merged, {}))
        put(merged, None, first)
        parts[family], unions[family] = [first, *own, *by_family[family]], merged
    return replace(compiled, fragments=parts, unions=unions)
