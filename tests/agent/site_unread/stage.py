"""The agent's ingress beside an API server that is silent or refuses as told, and a site without nginx."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec.structs import replace

from rulegen.agent.cluster import SharedCluster
from rulegen.agent.ingress.references import Memory
from rulegen.agent.ingress.sync import IngressSync
from rulegen.agent.telemetry.events import EventRequest, ObjectReference
from rulegen.agent.telemetry.log import AgentLog
from rulegen.agent.telemetry.state import AgentState
from rulegen.compiler.ingress.engine import DeployAction, DeployOutcome, ProgramEnds
from rulegen.compiler.ingress.nginx import NginxSite, compile_ingress
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.events import Changed, Gone, scoped
from rulegen.kube.objects.kinds import KubeObject
from rulegen.kube.objects.names import ObjectKey, ObjectName
from rulegen.kube.snapshot.world import ClusterSnapshot
from rulegen.kube.validation.validate import check
from rulegen.languages.configuration import Configuration
from rulegen.model.ingress.options import IngressOptions
from rulegen.plan.ingress import IngressPlan
from rulegen.plan.nginx import plan_site
from tests.strategies.ingresses import (
    OPTIONS,
    TEMPLATES,
    WEB,
    file_of,
    ingress,
    path,
    rule,
    secret,
    settings_map,
    site,
    tls,
    tls_secret,
)

NODE = ObjectReference("v1", "Node", "", "node", "uid")
CERT = ObjectName("default", "cert")
USERS = ObjectName("default", "users")
PASSWORDS = secret("users", auth=b"u:{PLAIN}p\n")
WITH_TLS = ingress("tls", rule("tls.test", path()), tls=[tls("cert", "tls.test")])
CERTIFICATE = tls_secret("cert", "tls.test")
SHUT = site("shut.test", auth_type="basic", auth_secret="users")
PLAIN = site("plain.test")
CLASS = k.IngressClass(metadata=k.ObjectMeta(name="mine"), spec=k.IngressClassSpec(controller="rulegen.io/ingress"))
RESTRICTED = settings_map(whitelist_source_range="10.0.0.0/8")


@dataclass
class Ticking:
    """A clock that goes on whenever somebody looks."""

    now: float = 0.0

    def __call__(self) -> float:
        self.now += 0.01
        return self.now


@dataclass
class MemorySite:
    """A site that is served from memory, by no nginx."""

    options: IngressOptions = OPTIONS
    notes: list[str] = field(default_factory=list)
    live: Configuration | None = None
    look: Callable[[IngressOptions], IngressOptions] = lambda options: options

    name = "nginx"
    ends = ProgramEnds()
    hindrance = ""

    @property
    def is_serving(self) -> bool:
        return self.live is not None

    def follow_files(self, *, ends: bool = False) -> None: ...

    def have_files_changed(self) -> bool:
        return False

    def refresh(self) -> bool:
        before, self.options = self.options, self.look(self.options)
        return before != self.options

    def observe(self) -> Configuration | None:
        return self.live

    def check(self, world: ClusterSnapshot, observed: Configuration | None, before: NginxSite | None) -> NginxSite:
        return compile_ingress(world, self.options, TEMPLATES, served=True, before=before)

    def plan(self, site: NginxSite, observed: Configuration | None) -> IngressPlan:
        return plan_site(observed, site.configuration, site.names, self.live.digest if self.live else "")

    def move(self, site: NginxSite, world: ClusterSnapshot, services: object) -> bool:
        return False

    def give(self, before: NginxSite, decide: object) -> bool:
        return False

    def deploy(self, site: NginxSite) -> DeployOutcome:
        action = DeployAction.NOTHING if site.configuration == self.live else DeployAction.RELOADED
        self.live = site.configuration
        return DeployOutcome(site.configuration.digest, action)


@dataclass
class Server:
    """An API server that answers what it is let answer: it is what the loop's watch asks.

    Attributes:
        looks: After so many looks at what is refused it ends its silence; 0 for never.
    """

    there: dict[ObjectKey, KubeObject] = field(default_factory=dict)
    silent: set[ObjectKey] = field(default_factory=set)
    forbidden: set[ObjectKey] = field(default_factory=set)
    cluster: SharedCluster = field(default_factory=SharedCluster)
    asked: set[ObjectKey] = field(default_factory=set)
    looks: int = 0

    def refer_to(self, *, secrets: frozenset[ObjectName], config_maps: frozenset[ObjectName]) -> None:
        self.asked = {ObjectKey("Secret", name) for name in secrets} | {
            ObjectKey("ConfigMap", name) for name in config_maps
        }
        self.answer()

    def refused(self) -> frozenset[ObjectKey]:
        self.looks -= 1
        if self.looks == 0:
            self.silent.clear()
            self.answer()
        return frozenset(self.forbidden & self.asked)

    def answer(self) -> None:
        """Tell of all that is asked for and answered."""
        for key in sorted(self.asked - self.silent - self.forbidden):
            self.tell(key)

    def tell(self, key: ObjectKey) -> bool:
        kind = getattr(k, key.kind)
        present = self.there.get(key)
        name = scoped(kind, *key.name)
        return bool(
            self.cluster.apply_event(
                Gone(kind, name) if present is None else Changed(kind, check(present, ""), name)
            ).site
        )

    def put(self, *objects: KubeObject) -> None:
        for stored in objects:
            metadata = stored.metadata
            self.there[key := ObjectKey(type(stored).__name__, ObjectName(metadata.namespace, metadata.name))] = stored
            if key.kind not in {"Secret", "ConfigMap"}:
                self.tell(key)
        self.answer()

    def delete(self, stored: KubeObject) -> None:
        key = ObjectKey(type(stored).__name__, ObjectName(stored.metadata.namespace, stored.metadata.name))
        del self.there[key]
        if key.kind not in {"Secret", "ConfigMap"} or key in self.asked:
            self.tell(key)


class Stage:
    """A loop that is turned by hand."""

    def __init__(self, *objects: KubeObject, silent=(), forbidden=(), known=None, live=None, **changes) -> None:
        self.server = Server(silent=set(silent), forbidden=set(forbidden))
        self.log, self.events = io.StringIO(), list[EventRequest]()
        self.site = MemorySite(replace(OPTIONS, **changes), live=live)
        self.clock = Ticking()
        self.known = known if known is not None else Memory()
        self.loop = self.begin()
        self.server.put(*WEB, *objects)

    def begin(self) -> IngressSync:
        """Return a loop that knows what the cluster was told."""
        return IngressSync(
            self.site,
            self.server.cluster.for_ingresses,
            self.server,
            AgentState(self.clock),
            AgentLog(out=self.log),
            self.clock,
            cluster=self.server.cluster,
            known=self.known,
            tell=self.events.append,
            forget=self.server.cluster.apply_event,
            about=lambda: NODE,
            is_alone=True,
        )

    def turn(self) -> Stage:
        self.loop.touch()
        self.loop.serve()
        return self

    def text(self, host: str) -> str:
        assert self.site.live is not None
        return self.site.live.files.get(file_of(host), "")

    def is_open(self, host: str) -> bool:
        return "proxy_pass" in self.text(host)

    def is_shut(self, host: str) -> bool:
        """Whether nobody gets in who does not say who it is, or nobody at all."""
        return "auth_basic_user_file" in self.text(host) or not self.is_open(host)

    def again(self, *, silent=()) -> Stage:
        """Return the loop of an agent that begins beside the nginx of this one."""
        stage = Stage(silent=silent, known=self.loop.objects.known, live=self.site.live)
        stage.site.options = self.site.options
        stage.server.put(*self.server.there.values())
        return stage


def secrets(*names: ObjectName) -> list[ObjectKey]:
    return [ObjectKey("Secret", name) for name in names]
