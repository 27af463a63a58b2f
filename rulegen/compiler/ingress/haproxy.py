"""From Ingresses to a configuration of HAProxy; nothing here touches the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rulegen.backends.haproxy.configuration import compile_files, render
from rulegen.backends.haproxy.location import location_name
from rulegen.model.ingress.resolve import resolve_ingress

if TYPE_CHECKING:
    from rulegen.backends.haproxy.configuration import HaproxyConfiguration, HaproxyFiles
    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.model.ingress.ir import IngressModel
    from rulegen.model.ingress.options import IngressOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class HaproxySite:
    """The complete configuration of HAProxy: as a model, as values and as files.

    Attributes:
        reads: None: any Service may change the configuration.
    """

    model: IngressModel
    values: HaproxyFiles
    configuration: HaproxyConfiguration
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


def compile_haproxy(world: ClusterSnapshot, options: IngressOptions) -> HaproxySite:
    """Return the configuration for the Ingresses of a snapshot, read back and compared.

    Raises:
        ConfigError: A setting is invalid.
        DifferenceError, UnwritableError: A text differs from the intended values; it must not be served.
    """
    files = compile_files(resolve_ingress(world, options))
    return HaproxySite(model=files.model, values=files, configuration=render(files))
