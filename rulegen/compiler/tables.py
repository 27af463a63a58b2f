"""The known languages and backends, which are passed to all functions that need them."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from rulegen.backends.table import BACKENDS, LAYOUTS
from rulegen.errors import ConfigError
from rulegen.languages.addresses.language import Addresses
from rulegen.languages.ipset.language import Ipsets
from rulegen.languages.iptables.language import Iptables
from rulegen.languages.iptables.loopback import LoopbackGuard
from rulegen.languages.ipvs.language import Ipvs
from rulegen.languages.listeners.language import ProxyLanguage
from rulegen.languages.nftables.language import FrontendMaps, Nftables
from rulegen.languages.routes.language import Routes
from rulegen.net import Family
from rulegen.ownership import chains, ipsets, nftables, virtual_servers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.backends.backend import Backend
    from rulegen.kube.proxyconfig.modes import ModeSections
    from rulegen.languages.language import Language

_LOOPBACK = LoopbackGuard(chains.filter_(chains.FIREWALL), chains.martian_drop(Family.IPV4).spec)
_FRONTENDS = FrontendMaps(
    served=frozenset({nftables.SERVICE_IPS, *nftables.FLAT.service_ips, nftables.SERVICE_NODE_PORTS}),
    refused=frozenset({nftables.NO_ENDPOINT_SERVICES, nftables.NO_ENDPOINT_NODE_PORTS}),
)

LANGUAGES: Mapping[str, Language] = MappingProxyType(
    {
        row.name: row
        for row in (
            Nftables(nftables.TABLES, _FRONTENDS, nftables.LOOPBACK_GUARD, nftables.PASSING),
            Iptables(chains.GUARDING, _LOOPBACK, chains.PORTALS),
            Addresses(virtual_servers.DEVICE),
            Ipsets(ipsets.order),
            Ipvs(),
            Routes(),
            ProxyLanguage(),
        )
    }
)
"""One row for each language, by name, in display order."""


class Tables(msgspec.Struct, frozen=True, kw_only=True):
    """The known languages and backends.

    Attributes:
        languages: By name, in display order.
        backends: By mode.
    """

    languages: Mapping[str, Language] = msgspec.field(default_factory=lambda: LANGUAGES)
    backends: Mapping[str, Backend] = msgspec.field(default_factory=lambda: BACKENDS)

    @property
    def modes(self) -> Mapping[str, ModeSections]:
        """The sections of a configuration that each mode uses."""
        return {mode: backend.sections for mode, backend in self.backends.items()}

    def with_layout(self, layout: str) -> Tables:
        """Return tables with the backend of a layout of nftables mode."""
        backend = LAYOUTS[layout]
        return replace(self, backends={**self.backends, backend.mode: backend})

    def backend(self, mode: str) -> Backend:
        """Return the backend of a mode.

        Raises:
            ConfigError: There is none.
        """
        backend = self.backends.get(mode)
        if backend is None:
            raise ConfigError(
                f"mode {mode!r} is not supported",
                hint=f"use --mode with one of: {', '.join(sorted(self.modes))}",
            )
        return backend


TABLES = Tables()
"""The tables of rulegen itself."""
