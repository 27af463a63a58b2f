"""An ingress engine that the tests alone have: its program is a file, which is changed without a reload."""

from __future__ import annotations

import datetime as dt
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rulegen.compiler.ingress.candidates import Candidates
from rulegen.compiler.ingress.engine import DeployAction, DeployOutcome, ProgramEnds
from rulegen.diff import items
from rulegen.model.ingress.last_read import Recollection
from rulegen.model.ingress.options import IngressOptions
from rulegen.model.ingress.resolve import resolve_ingress
from rulegen.model.ingress.routing.selection import selected
from rulegen.plan.ingress import IngressPlan
from tests.engines.text import Line, compile_model, digest, format_lines, parse

if TYPE_CHECKING:
    from rulegen.kube.objects.names import ObjectName
    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.model.ingress.ir import IngressModel

REFUSED = "refused.test"
"""The program takes no host of this name."""


@dataclass(frozen=True)
class TinySite:
    model: IngressModel
    lines: frozenset[Line]
    reads: None = None

    @property
    def digest(self) -> str:
        return digest(self.lines)


def compile_site(world: ClusterSnapshot, options: IngressOptions) -> TinySite:
    model = resolve_ingress(world, options)
    return TinySite(model, compile_model(model))


def plan(site: TinySite, observed: frozenset[Line] | None) -> IngressPlan:
    def item(action: items.Action, line: Line) -> items.Item:
        text = items.Line(action.value, format_lines([line]).strip())
        return items.Item(
            action=action, language="tiny", family="", kind="route", name=f"{line.host}{line.path}", lines=(text,)
        )

    there = observed or frozenset()
    added = [item(items.Action.ADD, line) for line in sorted(site.lines - there)]
    deleted = [item(items.Action.DELETE, line) for line in sorted(there - site.lines)]
    return IngressPlan("tiny", (*added, *deleted), runs=observed is not None, reload=observed is None)


@dataclass
class Known:
    """Remembers for as long as the process lives."""

    objects: Recollection = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def keep(self, objects: Recollection) -> None:
        self.objects = objects


@dataclass
class TinyCompiler:
    options: IngressOptions
    notes: list[str]
    name: str = "tiny"

    def compile(self, world: ClusterSnapshot) -> TinySite:
        return compile_site(world, self.options)

    def plan_all(self, site: TinySite) -> IngressPlan:
        return plan(site, None)

    def export(self, site: TinySite, folder: str, *, with_secrets: bool) -> list[str]:
        assert not with_secrets
        Path(folder).mkdir()
        (Path(folder) / "tiny.conf").write_text(format_lines(site.lines))
        return [f"{folder}/tiny.conf"]


@dataclass
class TinyEngine:
    folder: Path
    options: IngressOptions
    notes: list[str]
    look: Any
    name: str = "tiny"
    ends: ProgramEnds = field(default_factory=ProgramEnds)
    hindrance: str = ""

    @property
    def file(self) -> Path:
        return self.folder / "tiny.conf"

    @property
    def location(self) -> str:
        return str(self.folder)

    @property
    def is_serving(self) -> bool:
        return self.file.exists()

    def lock(self) -> None:
        return None

    def with_notes(self, notes: list[str]) -> TinyEngine:
        return replace(self, notes=notes)

    def known_objects(self, *, writes: bool = True) -> Known:
        assert writes
        return Known()

    def follow_files(self, *, ends: bool = False) -> None: ...

    def have_files_changed(self) -> bool:
        return False

    def refresh(self) -> bool:
        before, self.options = self.options, self.look(self.options)
        return before != self.options

    def observe(self) -> frozenset[Line] | None:
        return parse(self.file.read_text()) if self.is_serving else None

    def hosts(self, observed: frozenset[Line]) -> int:
        return len({line.host for line in observed} - {"*"})

    def check(
        self, world: ClusterSnapshot, observed: frozenset[Line] | None, before: TinySite | None = None
    ) -> TinySite:
        def refusal(site: TinySite) -> str | None:
            return f"no host {REFUSED}" if any(line.host == REFUSED for line in site.lines) else None

        def suspects(site: TinySite, _message: str) -> tuple[ObjectName, ...]:
            return site.model.servers[REFUSED].ingresses

        options = msgspec.structs.replace(self.options, now=dt.datetime.now(dt.UTC))
        candidates = Candidates[TinySite]("tiny", lambda changed, _: compile_site(world, changed), options)
        return candidates.settled(selected(world, options), refusal, suspects)

    def plan(self, site: TinySite, observed: frozenset[Line] | None) -> IngressPlan:
        return plan(site, observed)

    def taken_ports(self, site: TinySite) -> tuple[str, ...]:
        return ()

    def move(self, site: TinySite, world: ClusterSnapshot, services: object) -> bool:
        return False

    def give(self, before: TinySite, decide: object) -> bool:
        return False

    def deploy(self, site: TinySite) -> DeployOutcome:
        served = self.observe()
        if served == site.lines:
            return DeployOutcome(site.digest, DeployAction.NOTHING)
        self.folder.mkdir(exist_ok=True)
        self.file.write_text(format_lines(site.lines))
        return DeployOutcome(site.digest, DeployAction.STARTED if served is None else DeployAction.UPDATED)

    def drain(self, timeout_s: float) -> bool:
        self.file.unlink(missing_ok=True)
        return True


@dataclass
class TinyRemoval:
    folder: Path

    @property
    def location(self) -> str:
        return str(self.folder)

    def plan(self) -> IngressPlan:
        gone = items.Item(action=items.Action.DELETE, language="tiny", family="", kind="folder", name=self.location)
        return IngressPlan("tiny", (gone,) if self.folder.exists() else (), ends=True)

    def remove(self, plan: IngressPlan, timeout_s: float) -> list[str]:
        shutil.rmtree(self.folder)
        return [f"tiny in {self.folder} has stopped"]
