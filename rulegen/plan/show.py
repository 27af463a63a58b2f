"""Displays a plan: as text for people, as JSON for machines."""

from __future__ import annotations

import enum
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

import msgspec

from rulegen.diff.items import Action, Drift
from rulegen.model.ingress.reasons import Verdict
from rulegen.plan import effects
from rulegen.plan.ingress import DEFAULT_SERVER, EVERY_OTHER
from rulegen.text import counted_noun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rulegen.diff.items import Item, Line
    from rulegen.errors import Rejected
    from rulegen.model.ingress.reasons import Reason
    from rulegen.model.services.ir import ResolvedService
    from rulegen.plan.ingress import IngressPlan
    from rulegen.plan.plan import Plan

SCHEMA_VERSION = 1
NO_MODE = "no"
"""Mode of a report on a plan without rules of Services."""
NOT_MANAGED = "nothing, because rules of Services are not managed"
NO_SITE = "against nothing"
"""Text that a report has as `site` if the plan was made for a host without nginx."""
UNSEEN_SITE = "nothing, because its state was not observed"
"""Text that a report has as `site` if there is no plan for the engine, but reasons."""
NOTHING_TO_REMOVE = "Nothing to remove."
NO_CHANGES = "No changes. The node matches the objects."
NO_CHANGES_SEEN = "No changes in what was observed. Part of the node's state is unknown: see the warnings."

_COLOURS = {"+": "\033[32m", "-": "\033[31m", "~": "\033[33m", "#": "\033[2m", "*": "\033[1m"}
_NAMES_ALL = {"entry", "address"}
"""Kinds that are displayed by their name alone."""
_ON_ONE_LINE = {*_NAMES_ALL, "set", "device", "virtual server", "real server"}
"""Kinds that are displayed on one line, unless they change."""
_RESET = "\033[0m"


MOST_DETAILS = 60
"""Maximum number of lines about rules; a larger plan has only a summary."""


class Details(enum.Enum):
    """Whether a plan lists each changed object, after the summary by Service and host."""

    TOTALS = enum.auto()
    """Only totals and notes: not even the summary."""
    NONE = enum.auto()
    SMALL = enum.auto()
    """Only if they fit on a screen."""
    ALL = enum.auto()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What is displayed together with a plan.

    Attributes:
        observed: The state that the plan was compared with, such as `iptables-nft on this host`.
        rejected: Objects that were skipped.
        unknown_kinds: Number of ignored objects by kind.
        warnings: Problems that do not stop the command.
        services: By name: the source of the endpoints, and values assigned for a preview.
        reasons: Why Ingresses are not served as specified.
        site: What the engine's configuration was compared with; empty if it was not.
        is_partial: Whether some state that the mode needs was not observed.
        cleanup: Whether the plan removes rules of Services.
        shown: Which part of the plan is displayed; empty for all.
        made: Who made the plan, when, and from what, for machines; empty if that is not known.
    """

    node: str
    mode: str
    observed: str
    rejected: tuple[Rejected, ...] = ()
    unknown_kinds: Mapping[str, int] = msgspec.field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    services: Mapping[str, ResolvedService] = msgspec.field(default_factory=dict)
    reasons: tuple[Reason, ...] = ()
    site: str = ""
    is_partial: bool = False
    cleanup: bool = False
    shown: str = ""
    made: Mapping[str, str | None] = msgspec.field(default_factory=dict)

    @property
    def deviations(self) -> int:
        """How many reasons say that something is not served as specified."""
        return sum(reason.verdict.deviates for reason in self.reasons)


def summary(plan: Plan, report: Report) -> str:
    """Return the last line: the number of changes."""
    if plan.is_empty and report.cleanup:
        return NOTHING_TO_REMOVE
    if plan.is_empty:
        return NO_CHANGES_SEEN if report.is_partial else NO_CHANGES
    add, change, delete = (plan.count(action) for action in (Action.ADD, Action.CHANGE, Action.DELETE))
    return f"Plan: {add} to add, {change} to change, {delete} to delete."


def text(
    plan: Plan, report: Report, *, colour: bool, details: Details = Details.SMALL, total: Plan | None = None
) -> Iterator[str]:
    """Yield the lines of a plan as text: what changes for users, then each changed object with its reason.

    Text of objects and of the kernel is printed as printable characters only.

    Args:
        plan: The displayed part of the plan.
        report: The report for the plan.
        colour: Whether to use colours.
        details: Whether to list the changed objects.
        total: The whole plan, if only a part is displayed.
    """
    paint = painter(colour=colour)
    yield display_text(f"Node {report.node or '(unnamed)'}: {_subject(report)}")
    if report.shown:
        whole = counted_noun(len((total or plan).items), "change")
        yield display_text(f"Only {report.shown} is shown; the whole plan has {whole}.")
    changed = tuple(effects.effects(plan, report.services))
    if changed and details is not Details.TOTALS:
        yield ""
        for action, line in effects.lines(changed):
            yield paint(action.value, display_text(f"  {action.value} {line}"))
    yield from _details(plan, report, paint, details)
    yield from notes(report)
    yield ""
    yield from effects.totals(changed)
    drifted = sum(item.drift is not None for item in plan.items)
    if drifted:
        repairs = "1 change repairs" if drifted == 1 else f"{drifted:,} changes repair"
        yield f"Drift: {repairs} what something else changed on the node."
    yield paint("*", summary(total or plan, report))


def _details(plan: Plan, report: Report, paint: Callable[[str, str], str], details: Details) -> Iterator[str]:
    """Yield the lines about changed objects, or how to see them."""
    lines = _object_lines(plan, report, paint)
    if details is Details.TOTALS:
        return
    if details is Details.NONE:
        yield from _site_heading(plan, report, paint)
    elif details is Details.SMALL:
        first = list(islice(lines, MOST_DETAILS + 1))
        if len(first) > MOST_DETAILS:
            yield from _site_heading(plan, report, paint)
            yield ""
            number = counted_noun(len(plan.items), "object")
            yield f"{number} change. -v lists them; `rulegen plan NAMESPACE/NAME` lists those of one Service."
        else:
            yield from first
    else:
        yield from lines


def _site_heading(plan: Plan, report: Report, paint: Callable[[str, str], str]) -> Iterator[str]:
    """Yield what the ingress engine does: whether it is started, reloaded or stopped."""
    if plan.site is not None:
        yield ""
        heading = f"Ingress: {plan.site.engine} {_site_verb(plan.site)} ({display_text(_site_text(report))})"
        yield paint("*", heading)


def _object_lines(plan: Plan, report: Report, paint: Callable[[str, str], str]) -> Iterator[str]:
    engine = plan.site.engine if plan.site is not None else ""
    node_items = [item for item in plan.items if item.language != engine]
    for (is_leftover, owner), items in groupby(node_items, key=lambda item: (item.is_leftover, item.owner)):
        yield ""
        yield paint("*", display_text(_heading(owner, report, is_leftover=is_leftover)))
        for item in items:
            yield from item_lines(item, paint)
    yield from _site_heading(plan, report, paint)
    if plan.site is not None:
        for item in plan.site.items:
            yield from item_lines(item, paint)
    if plan.draining:
        yield ""
        have = "has" if len(plan.draining) == 1 else "have"
        yield f"Draining: {counted_noun(len(plan.draining), 'real server')} still {have} connections:"
        yield from (f"  {key!s}" for key in plan.draining)


def _subject(report: Report) -> str:
    """Return the subject of the plan (the Services of a mode, or another), and what it was compared with."""
    if report.cleanup:
        return f"cleanup of {report.observed}"
    if report.mode == NO_MODE:
        return "Services not managed"
    return f"{report.mode} mode; compared with {report.observed}"


def _site_text(report: Report) -> str:
    return "compared with an empty host" if report.site == NO_SITE else report.site


def _site_verb(site: IngressPlan) -> str:
    if site.ends:
        return "will be stopped" if site.runs else "is not running"
    if not site.reload:
        return "does not need a reload"
    return "will be reloaded" if site.runs else "will be started"


def notes(report: Report) -> Iterator[str]:
    """Yield additional information for the user: one line each, under headings."""
    if report.rejected:
        yield ""
        yield f"Skipped {counted_noun(len(report.rejected), 'invalid object')}:"
        yield from (f"  {display_text(line)}" for rejected in report.rejected for line in rejected.lines())
    for heading, reasons in (
        ("Ingresses that are not served as specified:", [each for each in report.reasons if each.verdict.deviates]),
        ("Ingresses that are not selected:", [each for each in report.reasons if each.verdict is Verdict.SKIPPED]),
        ("Notes on Ingresses:", [each for each in report.reasons if each.verdict.is_remark]),
    ):
        if reasons:
            yield ""
            yield heading
            yield from (f"  {display_text(str(reason))}" for reason in reasons)
    if report.warnings:
        yield ""
        yield "Warnings:"
        yield from (f"  {display_text(warning)}" for warning in report.warnings)
    if report.unknown_kinds:
        yield ""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(report.unknown_kinds.items()))
        yield f"Ignored kinds: {display_text(kinds)}"


def json_document(plan: Plan, report: Report, *, total: Plan | None = None) -> dict[str, Any]:
    """Return the plan as a document for machines; its shape changes only with `schemaVersion`.

    Args:
        plan: The displayed part of the plan.
        report: The report for the plan.
        total: The whole plan, if only a part is displayed; `summary` counts its changes.
    """
    whole = total or plan
    return {
        "schemaVersion": SCHEMA_VERSION,
        "kind": "Plan",
        "node": report.node,
        "mode": report.mode,
        "observed": report.observed,
        "shown": report.shown or None,
        "summary": {action.word: whole.count(action) for action in Action},
        "changes": [item_document(item) for item in plan.items],
        "draining": [str(key) for key in plan.draining],
        "services": {
            name: {
                "type": service.type,
                "endpointsFrom": service.endpoints_from or None,
                "assignedForPreview": list(service.assigned),
            }
            for name, service in report.services.items()
        },
        "rejected": rejected_documents(report),
        "ingress": None
        if plan.site is None and not report.site
        else {
            "observed": report.site,
            "reload": plan.site.reload if plan.site is not None else None,
            "reasons": [
                {
                    "ingress": str(reason.about.name) if reason.about else None,
                    "verdict": reason.verdict.value,
                    "path": reason.path or None,
                    "message": reason.message,
                }
                for reason in report.reasons
            ],
        },
        "warnings": list(report.warnings),
        "unknownKinds": dict(sorted(report.unknown_kinds.items())),
        **({"made": dict(report.made)} if report.made else {}),
    }


def rejected_documents(report: Report) -> list[dict[str, Any]]:
    """Return the skipped objects for machines, each with its faults."""
    return [
        {
            "object": rejected.object,
            "source": rejected.source,
            "faults": [{"path": fault.path, "message": fault.message} for fault in rejected.faults],
        }
        for rejected in report.rejected
    ]


def _heading(owner: str, report: Report, *, is_leftover: bool) -> str:
    if is_leftover:
        return f"Service {owner}, no longer served here" if owner else "Left over: no Service needs these objects"
    if not owner:
        return "Node-wide rules and parameters"
    service = report.services.get(owner)
    if service is None:
        return f"Service {owner}"
    about = [service.type]
    about += [f"endpoints from {service.endpoints_from}"] if service.endpoints_from else ["no endpoints"]
    about += [f"assigned for preview: {', '.join(service.assigned)}"] if service.assigned else []
    return f"Service {owner} ({'; '.join(about)})"


def item_lines(item: Item, paint: Callable[[str, str], str]) -> Iterator[str]:
    """Yield the lines of one changed object: its name, then its content."""
    sign = item.action.value
    places = " ".join(filter(None, (item.family, item.variant)))
    family = f" [{places}]" if places else ""
    foreign = "not written by rulegen or kube-proxy" if item.action is Action.DELETE else "changed by something else"
    drifts = {None: "", Drift.FOREIGN: f"  drift: {foreign}", Drift.MISSING: "  drift: deleted by something else"}
    drift = drifts[item.drift]
    name = display_text(DEFAULT_SERVER if item.name == EVERY_OTHER else item.name)
    if item.kind in _ON_ONE_LINE and item.action is not Action.CHANGE:
        words = "" if item.kind in _NAMES_ALL else "  " + "; ".join(display_text(line.text) for line in item.lines)
        yield paint(sign, f"  {sign} {item.kind} {name}{family}{words}{drift}")
        return
    if len(item.lines) == 1 and item.kind in {"rule", "jump", "flow"}:
        line = item.lines[0]
        if item.kind == "flow":
            yield paint(sign, f"  {sign} {item.language} {display_text(line.text)}") + _why(line, paint)
            return
        yield paint(sign, f"  {sign} {item.kind} {name}{family}{drift}")
        yield paint(sign, f"      {display_text(line.text)}") + _why(line, paint)
        return
    yield paint(sign, f"  {sign} {item.kind} {name}{family}{drift}")
    for line in item.lines:
        yield paint(line.sign, f"      {line.sign} {display_text(line.text)}") + _why(line, paint)


def _why(line: Line, paint: Callable[[str, str], str]) -> str:
    return paint("#", f"  # {display_text(line.why)}") if line.why else ""


def item_document(item: Item) -> dict[str, Any]:
    """Return one changed object for machines."""
    return {
        "action": item.action.word,
        "language": item.language,
        "family": item.family or None,
        "kind": item.kind,
        "name": item.name,
        "service": item.owner or None,
        "leftover": item.is_leftover,
        "variant": item.variant or None,
        "drift": item.drift.value if item.drift else None,
        "lines": [{"sign": line.sign, "text": line.text, "why": line.why or None} for line in item.lines],
    }


def painter(*, colour: bool) -> Callable[[str, str], str]:
    """Return a function that colours a text by the sign of its line; without colours, it returns the text as it is."""
    if not colour:
        return lambda _, content: content
    return lambda sign, content: f"{_COLOURS[sign]}{content}{_RESET}" if sign in _COLOURS else content


def display_text(content: str) -> str:
    """Return the text with all characters escaped that could move a cursor or fake a line."""
    return content if content.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in content)
