"""What one host adds to a configuration of HAProxy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rulegen.backends.haproxy.frontend import answer
from rulegen.backends.haproxy.location import ConfigParts, add_app_root, add_closed, add_location, add_www
from rulegen.backends.haproxy.maps import ordered_expressions, path_key
from rulegen.backends.haproxy.names import EXACT, HEALTHY, PREFIX, server_id
from rulegen.backends.haproxy.obeyed import Obeyed
from rulegen.backends.haproxy.own_maps import OwnMaps
from rulegen.backends.haproxy.served import disobeyed_by_host, disobeyed_by_location, disobeyed_by_path
from rulegen.backends.haproxy.stock import BackendNames
from rulegen.kube.objects.names import ObjectKey
from rulegen.languages.haproxy.text import UnwritableError
from rulegen.languages.haproxy.tree import ConfigSection
from rulegen.model.ingress.ir import MatchKind
from rulegen.model.ingress.reasons import Reason, Verdict
from rulegen.model.ingress.upstreams.reads import RecordedMapping

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rulegen.backends.haproxy.stock import ChosenName
    from rulegen.model.ingress.ir import IngressModel, Location, Server, Upstream

_KIND = "Ingress"
_NO_NAMES = BackendNames()
_VERDICTS = {Obeyed.OTHERWISE: Verdict.NOTE, Obeyed.NOT: Verdict.UNSUPPORTED, Obeyed.CLOSES: Verdict.CLOSED}


@dataclass(frozen=True, slots=True)
class HostParts:
    """What one host adds to a configuration.

    Attributes:
        server: The host.
        upstreams: The upstreams that were looked up for it.
        choices: The backends that were chosen.
        parts: Its backends, and what they need.
        names: The backend of each location.
        tables: Its paths that are compared as they are, by map.
        expressions: The entries of its map of expressions, in the order in which HAProxy tries them.
        reasons: The values that HAProxy does not apply.
    """

    server: Server
    upstreams: tuple[tuple[str, Upstream | None], ...]
    choices: tuple[ChosenName, ...]
    parts: ConfigParts
    names: tuple[str, ...]
    tables: Mapping[str, Mapping[str, str]]
    expressions: tuple[tuple[str, str], ...]
    reasons: frozenset[Reason]

    def is_valid(self, server: Server, model: IngressModel, names: BackendNames) -> bool:
        """Return whether a host with the same defaults adds the same again, to an HAProxy with these backends."""
        stock = names.stock
        return (
            stock is not None
            and self.server is server
            and all(model.upstreams.get(name) is known for name, known in self.upstreams)
            and all(name in stock.sections for kind, name in self.parts.sections if kind == "backend")
            and all(map(names.is_chosen_again, self.choices))
        )


def compiled_host(server: Server, model: IngressModel, shared: ConfigParts) -> HostParts:
    """Return what a host adds; with canaries, which hosts may share, this is added to the shared parts at once."""
    parts = shared if any(x.canaries for x in server.locations) else ConfigParts(names=shared.names)
    upstreams = RecordedMapping(model.upstreams)
    model = replace(model, upstreams=upstreams)
    reasons: set[Reason] = set()
    first = len(shared.names.choices)
    names = [(location, _added(location, server, model, parts, reasons)) for location in server.locations]
    tables: dict[str, dict[str, str]] = {EXACT: {}, PREFIX: {}}
    _paths(server, names, tables)
    _extras(server, model, parts, tables)
    if parts is not shared:
        parts.names, parts.values, parts.by_rule = _NO_NAMES, OwnMaps(), {}  # they would keep earlier configurations
    return HostParts(
        server=server,
        upstreams=tuple(upstreams.answers.items()),
        choices=tuple(shared.names.choices[first:]),
        parts=parts,
        names=tuple(name for _, name in names),
        tables=tables,
        expressions=tuple(ordered_expressions(expressions)) if (expressions := list(_expressions(names))) else (),
        reasons=frozenset(reasons),
    )


def _added(location: Location, server: Server, model: IngressModel, parts: ConfigParts, reasons: set[Reason]) -> str:
    """Return the name of a location's backend, which is added; report values that HAProxy does not apply."""
    about = ObjectKey(_KIND, location.ingress) if location.ingress is not None else None
    disobeyed = [*disobeyed_by_path(location.policy), *disobeyed_by_host(server)]
    closes = [message for how, message in disobeyed if how is Obeyed.CLOSES]
    if about is not None:
        for how, message in disobeyed:
            reasons.add(Reason(about, _VERDICTS[how], location.rule, message))
        for how, message in disobeyed_by_location(location, model) if not closes else ():
            reasons.add(Reason(about, _VERDICTS[how], "", message))
    if not closes:
        try:
            return add_location(location, server, model, parts)
        except UnwritableError as error:
            reasons.add(Reason(about, Verdict.CLOSED, location.rule, f"{error.message}: the path is closed"))
    return add_closed(location, parts)


def _paths(server: Server, names: Sequence[tuple[Location, str]], tables: Mapping[str, dict[str, str]]) -> None:
    """Add the paths of a host that are compared as they are."""
    files = {MatchKind.EXACT: EXACT, MatchKind.PREFIX: PREFIX}
    for location, name in names:
        if (file := files.get(location.kind)) is not None:
            tables[file][f"{server_id(server.host)}{path_key(location.path)}"] = name


def _expressions(names: Sequence[tuple[Location, str]]) -> Iterator[tuple[str, bool, str]]:
    for location, name in names:
        if location.kind in {MatchKind.REGEX, MatchKind.REGEX_CASED}:
            yield location.path, location.kind is MatchKind.REGEX, name


def _extras(server: Server, model: IngressModel, parts: ConfigParts, tables: Mapping[str, dict[str, str]]) -> None:
    """Add what a host answers beside its locations."""
    exact = tables[EXACT]
    if server.app_root:
        exact[f"{server_id(server.host)}/"] = add_app_root(server, parts)
    if not server.host and not any(location.path == "/healthz" for location in server.locations):
        parts.add(ConfigSection("backend", HEALTHY, (answer(200),)))
        exact[f"{server_id('')}/healthz"] = HEALTHY
    if server.redirects_from:
        tables[PREFIX][f"{server_id(server.redirects_from)}/"] = add_www(server, model, parts)
