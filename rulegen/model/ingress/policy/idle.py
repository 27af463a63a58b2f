"""Reports annotations without effect, each with its field and with what it would need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rulegen.model.ingress.policy.dependencies import DEPENDENCIES, OF_CANARIES, REDIRECTS, is_on
from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.values.annotations import access, balancing, routing
from rulegen.model.ingress.values.annotations.annotation import CLOSE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulegen.model.ingress.policy.dependencies import Dependency, Prerequisite
    from rulegen.model.ingress.values.annotations.annotation import Annotation
    from rulegen.model.ingress.values.annotations.reading import Annotations
    from rulegen.model.ingress.values.settings import Settings


def report_idle(annotations: Annotations, settings: Settings, *, has_tls: bool) -> None:
    """Report annotations that have no effect together with the others, because users may believe that they protect.

    The report is only a remark if the annotation would change nothing anyway: its value is the default, or its author
    has switched off what it depends on.

    Args:
        annotations: Annotations of one Ingress.
        settings: Settings of all hosts.
        has_tls: Whether the Ingress has a `tls` section.
    """
    is_canary = annotations.values[routing.CANARY]
    for annotation, value in annotations.values.items():
        dependency = DEPENDENCIES.get(annotation)
        if dependency is None or (is_canary and annotation not in OF_CANARIES):
            continue
        if not is_on(value) and (not dependency.needs or value == annotation.default or annotation.default is None):
            continue  # it asks for what is done anyway
        if _is_unmet(dependency, annotations, settings, has_tls=has_tls):
            _report_unmet(annotation, dependency, annotations)
        elif (rival := _first(dependency.yields_to, annotations, settings)) is not None:
            _report_overruled(annotation, rival, annotations)
    _report_undone(annotations)


def report_of_canary(canary: Annotations, main: Annotations) -> None:
    """Report annotations of a canary that differ from its main Ingress, which decides about the requests of both."""
    for annotation, value in canary.values.items():
        if annotation in OF_CANARIES or (not is_on(value) and value == annotation.default):
            continue
        if annotation not in main.values or main.values[annotation] != value:
            message = (
                f"for requests of a canary, the main Ingress {main.about.name} decides: this annotation has no effect"
            )
            canary.report(Verdict.IGNORED, annotation, message)


def _is_unmet(dependency: Dependency, annotations: Annotations, settings: Settings, *, has_tls: bool) -> bool:
    if not (dependency.needs or dependency.settings or dependency.needs_tls):
        return False
    if has_tls and dependency.needs_tls:
        return False
    if any(is_on(getattr(settings, name)) for name in dependency.settings):
        return False
    return _first(dependency.needs, annotations, settings) is None


def _first(conditions: Iterable[Prerequisite], annotations: Annotations, settings: Settings) -> Prerequisite | None:
    return next((prerequisite for prerequisite in conditions if prerequisite.holds(annotations, settings)), None)


def _report_unmet(annotation: Annotation[Any], dependency: Dependency, annotations: Annotations) -> None:
    if dependency.needs_tls:
        annotations.report(Verdict.NOTE, annotation, dependency.needs_tls)
        return
    names = list(map(str, dependency.needs))
    names += [f"{name.replace('_', '-')} in the ConfigMap" for name in dependency.settings]
    needed = f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]
    is_switched_off = any(
        prerequisite.annotation in annotations.values and not prerequisite.values for prerequisite in dependency.needs
    )
    is_harmless = is_switched_off or (
        annotation is not access.ENABLE_GLOBAL_AUTH and _is_default(annotation, annotations)
    )
    protects = " and protects nothing" if annotation.invalid is CLOSE or not dependency.needs else ""
    annotations.report(
        Verdict.NOTE if is_harmless else Verdict.IGNORED, annotation, f"without {needed} it has no effect{protects}"
    )


def _report_overruled(annotation: Annotation[Any], rival: Prerequisite, annotations: Annotations) -> None:
    protects = " and protects nothing" if annotation.invalid is CLOSE else ""
    if rival in REDIRECTS and annotation is not routing.PERMANENT_REDIRECT:
        verdict = Verdict.IGNORED if annotation.invalid is CLOSE else Verdict.NOTE
        why = f"{rival} redirects the requests first"
    else:
        is_same = annotations.values.get(rival.annotation) == annotations.values[annotation]
        verdict = Verdict.NOTE if is_same or _is_default(annotation, annotations) else Verdict.IGNORED
        why = f"{rival} has priority"
    annotations.report(verdict, annotation, f"{why}: this annotation has no effect{protects}")


def _is_default(annotation: Annotation[Any], annotations: Annotations) -> bool:
    return bool(annotations.values[annotation] == annotation.default)


def _report_undone(annotations: Annotations) -> None:
    """Report annotations that are read but not supported."""
    values = annotations.values
    if values[balancing.SESSION_COOKIE_CHANGE_ON_FAILURE] and values[balancing.AFFINITY]:
        message = "the cookie keeps its value, but another server may answer"
        annotations.report(Verdict.UNSUPPORTED, balancing.SESSION_COOKIE_CHANGE_ON_FAILURE, message)
