"""Protocols of an ingress engine: the program that serves Ingresses on a node, its compiler and its operation.

The commands and the agent know only these protocols. An engine is one row of `rulegen.cli.engines.table`; its
directives are in `backends`, its language in `languages`, and its access to the host in `host`.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from rulegen.kube.objects.names import ObjectKey, ObjectName
    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.model.ingress.ir import IngressModel
    from rulegen.model.ingress.last_read import KnownObject
    from rulegen.model.ingress.options import IngressOptions
    from rulegen.model.ingress.upstreams.reads import ServiceReads
    from rulegen.plan.ingress import IngressPlan


class DeployAction(enum.Enum):
    """The effect of a deployment on the engine's program."""

    NOTHING = "nothing"
    STARTED = "started"
    RELOADED = "reloaded"
    UPDATED = "updated"
    """The program was changed while it ran, without reading its configuration again."""


class DeployOutcome(msgspec.Struct, frozen=True):
    """Result of a deployment: the engine serves `digest`, or most of it if `again_s` is not 0.

    Attributes:
        digest: Digest of the served configuration.
        action: What was done with the program.
        seconds: Time from the start, the reload or the first change to the confirmation by the program.
        notes: Notes for the user.
        again_s: The time after which the site must be deployed again, since a part of it waits for the next reload; 0
            if nothing waits. `digest` is then that of the site before.
    """

    digest: str
    action: DeployAction
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    again_s: float = 0.0


class ProgramEnds(NamedTuple):
    """How often the program of an engine has ended although nobody asked it to.

    Attributes:
        times: The number of ends.
        how: How it ended last, such as `after 3.0 s by signal 9`.
    """

    times: int = 0
    how: str = ""


class AgentClaim(Protocol):
    """A lock for the life of an agent, so that one agent keeps one part of a node."""

    @property
    def is_held(self) -> bool:
        """Whether this process has the lock."""

    def take(self) -> None:
        """Take the lock, unless this process has it.

        Raises:
            HostError: Another agent has it, or it cannot be taken.
        """

    def release(self) -> None:
        """Give the lock back."""


class IngressSite(Protocol):
    """The compiled configuration of an engine."""

    @property
    def model(self) -> IngressModel:
        """The model that it was compiled from."""

    @property
    def digest(self) -> str:
        """Its identity: equal for equal configurations."""

    @property
    def reads(self) -> ServiceReads | None:
        """Services and addresses that may change the configuration; None if any may."""


class KnownObjects(Protocol):
    """Last known contents of objects, stored for the next decision and the next process."""

    notes: list[str]

    @property
    def objects(self) -> Mapping[ObjectKey, KnownObject]:
        """The stored objects."""

    def keep(self, objects: Mapping[ObjectKey, KnownObject]) -> None:
        """Store these objects and drop all others.

        Raises:
            HostError: They cannot be saved; this process still knows them.
        """


SiteT = TypeVar("SiteT", bound=IngressSite)
ObservedT = TypeVar("ObservedT")


class IngressCompiler(Protocol[SiteT]):
    """Compiles for an engine that need not be on this host.

    Attributes:
        options: Options of every engine; an engine adds its own.
        notes: Notes for the user.
    """

    options: IngressOptions
    notes: list[str]

    @property
    def name(self) -> str:
        """Name of the engine: the language of its plan's items, also used in logs and output."""

    def compile(self, world: ClusterSnapshot) -> SiteT:
        """Return the configuration for the Ingresses of a cluster, as files that work without rulegen.

        Raises:
            ConfigError: A setting or a template is invalid.
        """

    def plan_all(self, site: SiteT) -> IngressPlan:
        """Return the plan for a host where the engine serves nothing."""

    def export(self, site: SiteT, folder: str, *, with_secrets: bool) -> Sequence[str]:
        """Write a configuration to files that the engine's program can load; return lines about it for the user.

        Raises:
            HostError: It cannot be written.
        """


class IngressEngine(Protocol[SiteT, ObservedT]):
    """Compiles for the engine of this host, and deploys the result.

    A caller refreshes, observes, checks, plans and deploys, in this order, and passes on each result.

    Attributes:
        options: See `IngressCompiler`.
        notes: See `IngressCompiler`.
    """

    options: IngressOptions
    notes: list[str]

    @property
    def name(self) -> str:
        """See `IngressCompiler`."""

    @property
    def location(self) -> str:
        """The place of the engine's state on this host, such as a folder, for messages."""

    @property
    def is_serving(self) -> bool:
        """Whether the program runs and confirms the configuration that it serves; the answer comes within seconds.

        Raises:
            HostError: It does not answer.
        """

    @property
    def hindrance(self) -> str:
        """Why changes must wait although the program serves, as far as known; empty for nothing."""

    @property
    def ends(self) -> ProgramEnds:
        """How often the program has ended unexpectedly; whoever supervises it counts."""

    def follow_files(self, *, ends: bool = False) -> None:
        """Notice changes of the served files from now on, or none any more."""

    def have_files_changed(self) -> bool:
        """Return whether the served files may have been changed since the last call; the answer takes no time.

        False if that is unknown.
        """

    def lock(self) -> AgentClaim | None:
        """Return the lock on the state of the engine; None if there is none."""

    def with_notes(self, notes: list[str]) -> Self:
        """Return the same engine with another list for notes."""

    def known_objects(self, *, writes: bool = True) -> KnownObjects:
        """Return the last known objects; without `writes`, new ones are kept in this process only."""

    def refresh(self) -> bool:
        """Update the options to the current state of the host; return whether the configuration may change.

        Raises:
            HostError: The program is not installed or not usable.
        """

    def observe(self) -> ObservedT | None:
        """Return the served files and runtime state; None if nothing is served, or it cannot be read."""

    def hosts(self, observed: ObservedT) -> int:
        """Return the number of served hosts, without the default server."""

    def check(self, world: ClusterSnapshot, observed: ObservedT | None, before: SiteT | None = None) -> SiteT:
        """Return the configuration without the Ingresses that the program rejects, each reported with its reason.

        Args:
            world: The objects.
            observed: What is served, which need not be tested again. None for nothing, or what `deploy` served last.
            before: The site of the last decision, whose equal decisions need not be compiled again.

        Raises:
            HostError: The program rejects the configuration even without any Ingress, or does not answer.
            ConfigError: A setting or a template is invalid.
        """

    def plan(self, site: SiteT, observed: ObservedT | None) -> IngressPlan:
        """Return the changes on this host that a site needs."""

    def taken_ports(self, site: SiteT) -> Sequence[str]:
        """Return one line for each port of a site on which another program listens."""

    def deploy(self, site: SiteT) -> DeployOutcome:
        """Serve a site that `check` has returned; return when it serves all new connections.

        Raises:
            HostError: This failed; the message says what is served.
        """

    def move(self, site: SiteT, world: ClusterSnapshot, services: Collection[ObjectName]) -> bool:
        """Give the program the endpoints of Services at once, if it can take these alone.

        The next `check` and `deploy` serve them as all else, and write them.

        Args:
            site: What `deploy` has served last, or the site that `give` has given.
            world: The objects.
            services: All Services of which the endpoints have changed since.

        Returns:
            Whether the program has all of them now.
        """

    def give(self, before: SiteT, decide: Callable[[], SiteT]) -> bool:
        """Give the program a later site at once, before its files are written, if it can take it so.

        The next `check` and `deploy` write it. Until then, a plan shows the difference, and a restart of the program
        serves the files as they are.

        Args:
            before: The site of the last decision.
            decide: Returns the present site. It is called only if the program has all of `before`.

        Returns:
            Whether the program has all of the present site now.
        """

    def drain(self, timeout_s: float) -> bool:
        """Stop the program after its current requests; return whether all ended within `timeout_s`.

        Raises:
            HostError: It does not stop.
        """


class EngineRemoval(Protocol):
    """Removes an engine from this host."""

    @property
    def location(self) -> str:
        """See `IngressEngine`."""

    def plan(self) -> IngressPlan:
        """Return the plan of the removal; changes nothing.

        Raises:
            HostError: The state cannot be read, or does not belong to this engine.
        """

    def remove(self, plan: IngressPlan, timeout_s: float) -> Sequence[str]:
        """Stop the program as `IngressEngine.drain` does and delete its files.

        Return the completed actions, one line each.

        Raises:
            HostError: This failed.
        """


AnyEngine = IngressEngine[Any, Any]
AnyCompiler = IngressCompiler[Any]
