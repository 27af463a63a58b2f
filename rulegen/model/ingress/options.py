"""What is wanted of the ingress of a node, beside what the objects say."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from rulegen.model.forbidden import NOTHING, Forbidden
from rulegen.model.ingress.defaults import HttpHost
from rulegen.model.ingress.limits import HOSTS
from rulegen.model.ingress.values.annotations.reading import DEFAULT_PREFIX
from rulegen.model.ingress.values.classes import Selection
from rulegen.model.ingress.values.settings import Settings

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence

    from rulegen.kube.objects.names import ObjectName
    from rulegen.model.ingress.ir import SecretFile
    from rulegen.model.ingress.reasons import Reason
    from rulegen.net import Family


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressOptions:
    """What is wanted of the ingress of this node.

    Attributes:
        settings: What holds where the ConfigMap says nothing.
        host: What the host and the command line say about HTTP.
        config_map: The ConfigMap with settings; None for none.
        default_certificate: Secret of the certificate for hosts that have none; None for one that is made up.
        made_up_certificate: Path and content of that one.
        default_backend: Service and port that answers what nobody asked for; None for 404.
        refuses_names: Whether ExternalName Services are rejected.
        resolvers: Name servers.
        families: Which endpoints can be reached.
        node: The name of this node.
        forbidden: What of this host nginx connects to for no Ingress; objects add to it.
        now: The time, to report certificates that have ended; None to report none.
        most_hosts: How many hosts the Ingresses of one namespace have at most, see `rulegen.model.ingress.limits`.
        reports: What to report beside what follows from objects, as about flags without effect.
        without: Ingresses that are in quarantine, each with the reason.
    """

    selection: Selection = field(default_factory=Selection)
    prefix: str = DEFAULT_PREFIX
    settings: Settings = field(default_factory=Settings)
    host: HttpHost = field(default_factory=HttpHost)
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
    most_hosts: int = HOSTS
    reports: tuple[Reason, ...] = ()
    without: Mapping[ObjectName, str] = field(default_factory=lambda: MappingProxyType({}))
