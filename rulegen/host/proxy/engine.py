"""What the engines of proxies share: they observe releases, test configurations, leave out Ingresses, and deploy."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

from rulegen.compiler.ingress.engine import IngressSite, ProgramEnds
from rulegen.errors import HostError
from rulegen.host.files.notices import FolderNotices
from rulegen.host.locks.agent_lock import AgentLock
from rulegen.host.proxy.disk import default_certificate
from rulegen.host.proxy.disk.last_read import StoredObjects
from rulegen.host.proxy.processes.ends import ends_of
from rulegen.waits import WAITS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from rulegen.compiler.ingress.engine import DeployOutcome
    from rulegen.host.proxy.service import ProxyService
    from rulegen.kube.objects.names import ObjectName
    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.languages.configuration import Configuration
    from rulegen.model.ingress.options import IngressOptions
    from rulegen.plan.ingress import IngressPlan
    from rulegen.plan.proxy import PlannedProxy


class ProxySite(IngressSite, Protocol):
    """The compiled configuration of a proxy."""

    @property
    def configuration(self) -> Configuration:
        """Its files."""


ProxySiteT = TypeVar("ProxySiteT", bound=ProxySite)


@dataclass(slots=True)
class ProxyEngine(Generic[ProxySiteT]):
    """The proxy of one folder; see `IngressEngine`.

    Attributes:
        tries_aside: Whether a configuration is tested in a temporary folder, so that nothing is written before it is
            deployed. Else it is tested in the proxy's own folder, and `deploy` need not write it again.
        look: Returns options with the present state of the host.
        deployed: The digest of the configuration that this process has deployed last.
        files: Notices changes of the served files.
    """

    service: ProxyService
    options: IngressOptions
    notes: list[str] = field(default_factory=list)
    tries_aside: bool = False
    look: Callable[[IngressOptions], IngressOptions] = lambda options: options
    deployed: str = ""
    files: FolderNotices = field(default_factory=FolderNotices, kw_only=True)

    @property
    @abstractmethod
    def name(self) -> str:
        """See `IngressEngine`."""

    @property
    def location(self) -> str:
        """The folder that the proxy runs from."""
        return str(self.service.folder)

    def follow_files(self, *, ends: bool = False) -> None:
        """Notice changes of the live release from now on, or none any more."""
        self.files.close()
        if ends:
            return
        home = self.service.folder
        release = (home / "current").resolve()
        with suppress(OSError):  # it was just removed: the next check finds that
            inner = [release, *(path for path in release.iterdir() if path.is_dir())]
            self.files.follow({home: frozenset({"current"}), **dict.fromkeys(inner, frozenset())})

    def have_files_changed(self) -> bool:
        """Return whether the live release may have been changed since the last call."""
        return self.files.have_changed()

    def with_notes(self, notes: list[str]) -> Self:
        """Return the same engine with another list of notes."""
        return replace(self, notes=notes)

    def lock(self) -> AgentLock:
        """Return the lock on the proxy of the folder."""
        folder = self.service.folder
        return AgentLock(
            folder / "run", "agent.lock", f"the {self.name} of {folder}", prepare=self.service.releases.prepare
        )

    def known_objects(self, *, writes: bool = True) -> StoredObjects:
        """Return the last readable objects in the proxy's folder."""
        return StoredObjects(self.service.folder, writes=writes)

    def refresh(self) -> bool:
        """Update the options to the present state of the host; return whether the configuration may change."""
        before, self.options = self.options, self.look(self.options)
        return self.options != before

    @property
    def is_serving(self) -> bool:
        """Whether the proxy runs from the folder and answers with its digest."""
        return bool(self.service.answer())

    @property
    def hindrance(self) -> str:
        """Why the proxy cannot be reloaded although it serves."""
        return self.service.hindrance()

    @property
    def ends(self) -> ProgramEnds:
        """How often the proxy has ended unexpectedly."""
        return ProgramEnds(*ends_of(self.service.folder))

    def observe(self) -> Configuration | None:
        """Return the served configuration; None if there is none, or it cannot be read."""
        if not self.service.folder.is_dir():
            return None
        try:
            with WAITS.waiting(f"the disk: reading the release in {self.service.folder}"):
                return self.service.releases.current()
        except HostError as error:
            self._note(f"{error.message}: the plan assumes that nothing is served, and writes everything again")
            return None

    def tested(
        self,
        is_accepted: Callable[[ProxySiteT], bool],
        settle: Callable[[Callable[[ProxySiteT], str | None]], ProxySiteT],
    ) -> ProxySiteT:
        """Return the site that `settle` chooses with a test: why the proxy rejects a site, or None.

        Args:
            is_accepted: Whether the proxy is known to accept a site, such as the served one, which is not tested again.
            settle: Chooses a site.
        """
        with self.service.aside() if self.tries_aside else nullcontext(self.service) as tester:

            def test(site: ProxySiteT) -> str | None:
                if is_accepted(site):
                    return None
                verdict = tester.test(site.configuration)
                self._note(verdict.note)
                return verdict.message

            return settle(test)

    def taken_ports(self, site: ProxySiteT) -> tuple[str, ...]:
        """Return one line for each port on which another program listens."""
        host = site.model.defaults.host
        return tuple(map(str, self.service.taken_ports((host.http_port, host.https_port))))

    def deploy(self, site: ProxySiteT) -> DeployOutcome:
        """Deploy a site that `check` has returned."""
        made_up = self.options.made_up_certificate
        if made_up is not None and default_certificate.load(self.service.folder) is None:
            self.service.releases.prepare()
            default_certificate.store(self.service.folder, made_up.content)
        host = site.model.defaults.host
        outcome = self.service.apply(site.configuration, listens=(host.http_port, host.https_port), tested=True)
        self.deployed = outcome.digest
        return outcome

    def move(self, site: ProxySiteT, world: ClusterSnapshot, services: Collection[ObjectName]) -> bool:
        """Return False: the proxy takes endpoints only with its whole configuration; see `IngressEngine`."""
        del site, world, services
        return False

    def give(self, before: ProxySiteT, decide: Callable[[], ProxySiteT]) -> bool:
        """Return False: the proxy takes a configuration only with its files; see `IngressEngine`."""
        del before, decide
        return False

    def served(self) -> str:
        """Return the digest that the proxy answers; empty without an answer."""
        return self.service.answer()

    def drain(self, timeout_s: float) -> bool:
        """End the proxy after its open requests; return whether all ended within `timeout_s` seconds."""
        return self.service.drain(timeout_s)

    def _note(self, text: str) -> None:
        if text and text not in self.notes:
            self.notes.append(text)


@dataclass(frozen=True, slots=True)
class ProxyRemoval:
    """Removes a proxy and its folder; see `EngineRemoval`."""

    service: ProxyService
    plans: PlannedProxy

    @property
    def location(self) -> str:
        """The folder that the proxy runs from."""
        return str(self.service.folder)

    def plan(self) -> IngressPlan:
        """Return the plan that removes the proxy and its folder."""
        exists = self.service.has_begun()
        return self.plans.plan_ending(self.location, exists=exists, runs=exists and self.service.runs())

    def remove(self, plan: IngressPlan, timeout_s: float) -> list[str]:
        """End the proxy and delete its folder; return a line for each step."""
        in_time = self.service.drain(timeout_s, remove=True)
        name = self.plans.language
        if not plan.runs:
            return [f"no {name} ran in {self.location}; the folder was removed"]
        return [
            f"{name} in {self.location} has stopped" + ("" if in_time else "; its remaining connections were closed")
        ]
