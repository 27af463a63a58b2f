"""Options for the Ingresses of a node that do not come from objects."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

from rulegen.model.forbidden import NOTHING, Forbidden
from rulegen.model.ingress.defaults import HttpHost
from rulegen.model.ingress.values.classes import DEFAULT_PREFIX, MOST_HOSTS, Selection
from rulegen.model.ingress.values.settings import Settings

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence

    from rulegen.kube.objects.names import ObjectName
    from rulegen.model.ingress.ir import SecretFile
    from rulegen.model.ingress.reasons import Reason
    from rulegen.net import Family


class IngressOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options for the Ingresses of this node.

    Attributes:
        settings: Settings for keys that the ConfigMap does not contain.
        host: Properties of the host.
        config_map: The ConfigMap with settings; None for none.
        default_certificate: The Secret of the default certificate; None for a self-signed one.
        made_up_certificate: The self-signed default certificate.
        default_backend: Service and port for requests that no Ingress matches; None for 404.
        refuses_names: Whether Services of type ExternalName are rejected.
        resolvers: Name servers.
        families: Address families in which endpoints are reachable.
        node: The name of this node.
        forbidden: Addresses of this host that nginx never connects to for an Ingress; objects add others.
        now: The time, for reports about expired certificates; None for no such reports.
        most_hosts: Maximum number of hosts of one namespace; see `rulegen.model.ingress.limits`.
        reports: Additional reports, for example about flags without effect.
        without: Quarantined Ingresses, each with the reason.
    """

    selection: Selection = msgspec.field(default_factory=Selection)
    prefix: str = DEFAULT_PREFIX
    settings: Settings = msgspec.field(default_factory=Settings)
    host: HttpHost = msgspec.field(default_factory=HttpHost)
    config_map: ObjectName | None = None
    default_certificate: ObjectName | None = None
    made_up_certificate: SecretFile | None = None
    default_backend: ObjectName | None = None
    refuses_names: bool = False
    resolvers: tuple[str, ...] = ()
    families: Sequence[Family] = ()
    node: str = ""
    forbidden: Forbidden = NOTHING
    now: dt.datetime | None = None
    most_hosts: int = MOST_HOSTS
    reports: tuple[Reason, ...] = ()
    without: Mapping[ObjectName, str] = msgspec.field(default_factory=lambda: MappingProxyType({}))
