"""What an ingress engine is: the program that serves Ingresses on a node, and how rulegen compiles for it and runs it.

The commands and the agent know these protocols alone. An engine is one row of `rulegen.cli.engines.table`; its
directives are in `backends`, its language in `languages`, and what touches the host in `host`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rulegen.kube.objects.names import ObjectKey
    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.model.ingress.ir import IngressModel
    from rulegen.model.ingress.last_read import KnownObject
    from rulegen.model.ingress.options import IngressOptions
    from rulegen.model.ingress.reads import ServiceReads
    from rulegen.plan.ingress import IngressPlan


class DeployAction(enum.Enum):
    """What a deployment did to the engine's program."""

    NOTHING = "nothing"
    STARTED = "started"
    RELOADED = "reloaded"
    UPDATED = "updated"
    """It was changed while it ran, without reading its configuration again."""


@dataclass(frozen=True, slots=True)
class DeployOutcome:
    """How a deployment ended: the engine serves `digest`.

    Attributes:
        digest: What is served now.
        action: What was done for it.
        seconds: From the start, the reload or the first change, until the program has confirmed it.
        notes: What a user should know.
    """

    digest: str
    action: DeployAction
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


class IngressSite(Protocol):
    """All that an engine is to serve, compiled."""

    @property
    def model(self) -> IngressModel:
        """What it was compiled from."""

    @property
    def digest(self) -> str:
        """Names it: equal for equal configurations."""

    @property
    def reads(self) -> ServiceReads | None:
        """The Services and addresses by which another site may follow; None if any may matter."""


class KnownObjects(Protocol):
    """What objects said when they were last read, kept for the next time and the next process."""

    notes: list[str]

    @property
    def objects(self) -> Mapping[ObjectKey, KnownObject]:
        """The objects that are known from before."""

    def keep(self, objects: Mapping[ObjectKey, KnownObject]) -> None:
        """Know these from now on, and nothing else.

        Raises:
            HostError: They cannot be written; this process knows them all the same.
        """


SiteT = TypeVar("SiteT", bound=IngressSite)
ObservedT = TypeVar("ObservedT")


class IngressCompiler(Protocol[SiteT]):
    """Compiles for an engine that need not be on this host.

    Attributes:
        options: What is wanted; an engine adds to it what only it knows.
        notes: What a user should know although work continues.
    """

    options: IngressOptions
    notes: list[str]

    @property
    def name(self) -> str:
        """The engine's name: it is the language of its plan's items, and stands in logs and output."""

    def compile(self, world: ClusterSnapshot) -> SiteT:
        """Return the configuration for the Ingresses of a cluster, as plain files that need nothing of rulegen.

        Raises:
            ConfigError: A setting or a template cannot be used.
        """

    def plan_all(self, site: SiteT) -> IngressPlan:
        """Return the plan for a host where the engine serves nothing."""

    def export(self, site: SiteT, folder: str, *, with_secrets: bool) -> Sequence[str]:
        """Write a configuration to files that the engine's program loads; return lines about it for the user.

        Raises:
            HostError: It cannot be written.
        """


class IngressEngine(Protocol[SiteT, ObservedT]):
    """Compiles for the engine of this host, and has it serve the result.

    A caller observes, checks, plans and deploys, in this order, and passes on what it was given.

    Attributes:
        options: As `IngressCompiler` has it.
        notes: As `IngressCompiler` has it.
    """

    options: IngressOptions
    notes: list[str]

    @property
    def name(self) -> str:
        """As `IngressCompiler` has it."""

    @property
    def location(self) -> str:
        """Where on this host the engine keeps its state, as users know it: a folder, say."""

    @property
    def is_serving(self) -> bool:
        """Whether the program runs, and confirms what it serves.

        Raises:
            HostError: It cannot be asked.
        """

    def with_notes(self, notes: list[str]) -> Self:
        """Return the same engine with another list for notes."""

    def known_objects(self, *, writes: bool = True) -> KnownObjects:
        """Return the objects that are known from before; without `writes`, new ones are for this process alone."""

    def refresh(self) -> bool:
        """Update the options to the present state of the host; return whether another configuration may follow."""

    def observe(self) -> ObservedT | None:
        """Return what is served, files and runtime state; None if nothing is, or it cannot be read."""

    def hosts(self, observed: ObservedT) -> int:
        """Return how many hosts are served, the default server not counted."""

    def check(self, world: ClusterSnapshot, observed: ObservedT | None, before: SiteT | None = None) -> SiteT:
        """Return the configuration without the Ingresses that the program rejects, each reported with its reason.

        Args:
            world: The objects.
            observed: What is served; it need not be tried again. None where nothing is, or what `deploy` served last.
            before: The site of the last decision: what is decided alike need not be compiled again.

        Raises:
            HostError: The program rejects the configuration even without any Ingress, or cannot be asked.
            ConfigError: A setting or a template cannot be used.
        """

    def plan(self, site: SiteT, observed: ObservedT | None) -> IngressPlan:
        """Return what must change on this host for a site to be served."""

    def taken_ports(self, site: SiteT) -> Sequence[str]:
        """Return one line for each port of a site that another program listens on."""

    def deploy(self, site: SiteT) -> DeployOutcome:
        """Serve a site that `check` has returned; return when all new connections are served with it.

        Raises:
            HostError: It cannot be done; says what is served.
        """

    def drain(self, timeout_s: float) -> bool:
        """End the program when its requests are answered; return whether all were within `timeout_s`.

        Raises:
            HostError: It does not end.
        """


class EngineRemoval(Protocol):
    """Removes an engine from this host."""

    @property
    def location(self) -> str:
        """As `IngressEngine` has it."""

    def plan(self) -> IngressPlan:
        """Return what must go; changes nothing.

        Raises:
            HostError: It cannot be read, or is not of this engine.
        """

    def remove(self, plan: IngressPlan, timeout_s: float) -> Sequence[str]:
        """End the program as `IngressEngine.drain` does and delete its files; return what was done, in lines.

        Raises:
            HostError: It cannot be done.
        """


AnyEngine = IngressEngine[Any, Any]
AnyCompiler = IngressCompiler[Any]
