"""What holds for all hosts of a node: the settings of the ConfigMap, what the host adds, and what follows from both."""

from __future__ import annotations

from dataclasses import dataclass, field

from rulegen.model.ingress.values.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpHost:
    """What the host and the command line say about HTTP.

    Attributes:
        http_port, https_port: Where the HTTP server listens.
        names_port: Where a process of ours may answer for names, except for those that lead to forbidden addresses; 0
            where the HTTP server asks the name servers itself.
        user: User, and group behind a space, of the workers; empty for that of the master.
        ipv6: Whether the host speaks IPv6.
        sets_server: Whether the HTTP server can send another header Server than its own.
        traits: What an engine must know of its installed program, in words of its own; nothing else reads them.
    """

    http_port: int = 80
    https_port: int = 443
    names_port: int = 0
    user: str = "www-data"
    ipv6: bool = True
    sets_server: bool = False
    traits: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpDefaults:
    """What holds for all hosts, made once; where two are equal, the files of hosts differ by their own decisions only.

    Attributes:
        settings: Those of the ConfigMap.
        host: What the host and the command line say.
        names_port: Where a process of ours answers for names; 0 if none is resolved, or nobody of ours answers.
        default_certificate: Path, in the configuration, of the certificate for hosts without one of their own.
        names_certificates: Whether each host names its certificate, the default one too, as nginx rejects some that do
            not.
    """

    settings: Settings = field(default_factory=Settings)
    host: HttpHost = field(default_factory=HttpHost)
    names_port: int = 0
    default_certificate: str = ""
    names_certificates: bool = False

    @property
    def has_ipv6(self) -> bool:
        """Whether IPv6 is spoken: the host can, and the settings do not switch it off."""
        return self.host.ipv6 and not self.settings.disable_ipv6
