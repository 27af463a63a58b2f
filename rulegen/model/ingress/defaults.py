"""Defaults of all hosts of a node: the settings of the ConfigMap and properties of the host."""

from __future__ import annotations

import msgspec

from rulegen.model.ingress.values.settings import Settings


class HttpHost(msgspec.Struct, frozen=True, kw_only=True):
    """Properties of the host and options of the command line that concern HTTP.

    Attributes:
        http_port, https_port: Ports of the HTTP server.
        names_port: Port for rulegen's resolver process, which does not resolve names to forbidden addresses; 0 if the
            HTTP server asks the name servers itself.
        user: User of the workers, optionally followed by a space and the group; empty for that of the master process.
        ipv6: Whether the host has IPv6.
        sets_server: Whether the HTTP server can replace its own header Server.
        traits: Properties of the installed program, in a notation that only the engine reads.
    """

    http_port: int = 80
    https_port: int = 443
    names_port: int = 0
    user: str = "www-data"
    ipv6: bool = True
    sets_server: bool = False
    traits: frozenset[str] = frozenset()


class HttpDefaults(msgspec.Struct, frozen=True, kw_only=True):
    """Defaults of all hosts. While they are equal, the file of a host changes only with the host's own decisions.

    Attributes:
        settings: Settings of the ConfigMap.
        host: Properties of the host.
        names_port: Port of rulegen's resolver process; 0 if there are no names to resolve, or no such process.
        default_certificate: Path of the default certificate's file in the configuration.
        names_certificates: Whether each server must contain its certificate, even the default one, because nginx
            otherwise rejects the configuration.
    """

    settings: Settings = msgspec.field(default_factory=Settings)
    host: HttpHost = msgspec.field(default_factory=HttpHost)
    names_port: int = 0
    default_certificate: str = ""
    names_certificates: bool = False

    @property
    def has_ipv6(self) -> bool:
        """Whether IPv6 is used: the host has it, and the settings do not disable it."""
        return self.host.ipv6 and not self.settings.disable_ipv6
