"""From Ingresses to a configuration of HAProxy; nothing here touches the host."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rulegen.backends.haproxy.configuration import compile_files, render
from rulegen.backends.haproxy.names import CONFIG
from rulegen.backends.haproxy.stock import stock_of
from rulegen.model.ingress.resolve import decide_ingress

if TYPE_CHECKING:
    from rulegen.backends.haproxy.configuration import HaproxyFiles, RenderedFiles
    from rulegen.backends.haproxy.stock import BackendStock
    from rulegen.kube.objects.names import ObjectName
    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.languages.configuration import Configuration
    from rulegen.model.ingress.ir import IngressModel
    from rulegen.model.ingress.options import IngressOptions
    from rulegen.model.ingress.resolve import IngressDecisions
    from rulegen.model.ingress.upstreams.reads import ServiceReads

_PLACE: Final = re.compile(rf"\[{re.escape(CONFIG)}:(?P<line>[0-9]{{1,9}})\]")
_SECTION: Final = re.compile(r"\S+ (?P<name>\S+)\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class HaproxySite:
    """The complete configuration of HAProxy: as a model, as values and as files.

    Attributes:
        reads: Services and addresses that may change the configuration; None if any may.
    """

    model: IngressModel
    rendered: RenderedFiles
    decisions: IngressDecisions | None = field(default=None, compare=False, repr=False)
    reads: ServiceReads | None = field(default=None, compare=False, repr=False)

    @property
    def values(self) -> HaproxyFiles:
        """The values."""
        return self.rendered.files

    @property
    def configuration(self) -> Configuration:
        """The files."""
        return self.rendered.configuration

    @property
    def structure(self) -> str:
        """The digest of what only a reload of HAProxy changes."""
        return self.rendered.structure

    @property
    def digest(self) -> str:
        """The digest of the configuration."""
        return self.configuration.digest

    @property
    def provenance(self) -> list[dict[str, Any]]:
        """Source of each location."""
        return [
            {
                "server": server.host or "_",
                "location": f"{location.kind.value} {location.path}",
                "backend": backend,
                "ingress": str(location.ingress) if location.ingress else None,
                "rule": location.rule or None,
                "path": location.source or None,
                "canaries": [str(canary.ingress) for canary in location.canaries],
            }
            for server in self.model.servers.values()
            for location, backend in zip(server.locations, self.values.backends[server.host], strict=True)
        ]


def compile_haproxy(
    world: ClusterSnapshot,
    options: IngressOptions,
    *,
    served: bool,
    live: Configuration | None = None,
    before: HaproxySite | None = None,
) -> HaproxySite:
    """Return the configuration for the Ingresses of a snapshot, read back and compared.

    Args:
        world: The objects.
        options: The options.
        served: Whether it is for an HAProxy that rulegen runs, not only for reading.
        live: The served configuration. If its backends are enough, they stay, and HAProxy needs no reload.
        before: The previous site: valid decisions are reused.

    Raises:
        ConfigError: A setting is invalid.
        DifferenceError, UnwritableError: A text differs from the intended values; it must not be served.
    """
    decisions = decide_ingress(world, options, before.decisions if before is not None else None)
    stock = _stock(live, before) if live is not None else None
    files = compile_files(
        decisions.model, served=served, stock=stock, before=before.values if before is not None else None
    )
    rendered = render(files, served=served, before=before.rendered if before is not None else None)
    if stock is not None and rendered.structure != stock.structure:
        rendered = render(compile_files(decisions.model, served=served), served=served)
    return HaproxySite(model=rendered.files.model, rendered=rendered, decisions=decisions, reads=decisions.reads)


def _stock(live: Configuration, before: HaproxySite | None) -> BackendStock:
    """Return what an HAProxy with these files has."""
    if before is not None and before.configuration is live and before.values.stock is not None:
        return before.values.stock
    return stock_of(live)


def suspects(site: HaproxySite, message: str) -> list[ObjectName]:
    """Return the Ingresses that a message of HAProxy refers to, by the line that it names."""
    lines = site.configuration.files[CONFIG].splitlines()
    names = (_section(lines, int(match["line"])) for match in _PLACE.finditer(message))
    return list(dict.fromkeys(owner for name in names for owner in site.values.owners.get(name, ())))


def _section(lines: list[str], number: int) -> str:
    """Return the name of the section that a line is in; empty if it has none."""
    starts = (line for line in reversed(lines[:number]) if line[:1].strip())
    match = _SECTION.match(next(starts, ""))
    return match["name"] if match else ""
