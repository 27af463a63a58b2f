"""From Ingresses to a configuration of HAProxy; nothing here touches the host."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rulegen.backends.haproxy.configuration import compile_files, render
from rulegen.backends.haproxy.location import location_name
from rulegen.backends.haproxy.names import CONFIG
from rulegen.model.ingress.resolve import resolve_ingress

if TYPE_CHECKING:
    from rulegen.backends.haproxy.configuration import HaproxyFiles
    from rulegen.kube.objects.names import ObjectName
    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.languages.configuration import Configuration
    from rulegen.model.ingress.ir import IngressModel
    from rulegen.model.ingress.options import IngressOptions

_PLACE: Final = re.compile(rf"\[{re.escape(CONFIG)}:(?P<line>[0-9]{{1,9}})\]")
_SECTION: Final = re.compile(r"\S+ (?P<name>\S+)\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class HaproxySite:
    """The complete configuration of HAProxy: as a model, as values and as files.

    Attributes:
        reads: None: any Service may change the configuration.
    """

    model: IngressModel
    values: HaproxyFiles
    configuration: Configuration
    reads: None = None

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
                "backend": location_name(location, server),
                "ingress": str(location.ingress) if location.ingress else None,
                "rule": location.rule or None,
                "path": location.source or None,
                "canaries": [str(canary.ingress) for canary in location.canaries],
            }
            for server in self.model.servers.values()
            for location in server.locations
        ]


def compile_haproxy(world: ClusterSnapshot, options: IngressOptions, *, served: bool) -> HaproxySite:
    """Return the configuration for the Ingresses of a snapshot, read back and compared.

    Args:
        world: The objects.
        options: The options.
        served: Whether it is for an HAProxy that rulegen runs, not only for reading.

    Raises:
        ConfigError: A setting is invalid.
        DifferenceError, UnwritableError: A text differs from the intended values; it must not be served.
    """
    files = compile_files(resolve_ingress(world, options), served=served)
    return HaproxySite(model=files.model, values=files, configuration=render(files, served=served))


def suspects(site: HaproxySite, message: str) -> list[ObjectName]:
    """Return the Ingresses that a message of HAProxy refers to, by the line that it names."""
    lines = site.configuration.files[CONFIG].splitlines()
    names = {_section(lines, int(match["line"])).partition(".")[0] for match in _PLACE.finditer(message)}
    there = (
        location.ingress
        for server in site.model.servers.values()
        for location in server.locations
        if location.ingress is not None and location_name(location, server) in names
    )
    return list(dict.fromkeys(there))


def _section(lines: list[str], number: int) -> str:
    """Return the name of the section that a line is in; empty if it has none."""
    starts = (line for line in reversed(lines[:number]) if line[:1].strip())
    match = _SECTION.match(next(starts, ""))
    return match["name"] if match else ""
