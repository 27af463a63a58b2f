"""The annotations of one Ingress: their values, and what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from rulegen.model.ingress.reasons import Reason, Verdict
from rulegen.model.ingress.unread import UnreadError
from rulegen.model.ingress.values import readers
from rulegen.model.ingress.values.annotations.annotation import Annotation, AnnotationValues, InvalidValue, gravest
from rulegen.model.ingress.values.annotations.table import ANNOTATIONS
from rulegen.model.ingress.values.annotations.unsupported import SNIPPETS, UNSUPPORTED
from rulegen.model.ingress.values.empty import EmptyValueError
from rulegen.model.ingress.values.without_effect.names import question
from rulegen.model.services.annotations.annotation import PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.kube.objects.names import ObjectKey

DEFAULT_PREFIX: Final = "nginx.ingress.kubernetes.io"
MAX_UNKNOWN: Final = 50
"""How many unknown annotations of one Ingress are reported one by one."""

_SHORT: Final = 200
"""Characters of a text whose value is kept for the next Ingress that has the same."""


@dataclass(slots=True)
class Annotations:
    """The annotations of one Ingress.

    Attributes:
        about: The Ingress.
        values: Those that could be read.
        failed: Those that could not.
        snippets: Those that are snippets, by name, unread.
        outcome: The gravest policy that follows from invalid values and from objects that cannot be used.
        reasons: What could not be read or has no effect.
    """

    about: ObjectKey
    prefix: str = DEFAULT_PREFIX
    values: AnnotationValues = field(default_factory=AnnotationValues)
    failed: set[Annotation[Any]] = field(default_factory=set)
    snippets: dict[str, str] = field(default_factory=dict)
    outcome: InvalidValue = InvalidValue.IGNORE
    reasons: list[Reason] = field(default_factory=list)

    def report(self, verdict: Verdict, annotation: Annotation[Any], message: str) -> None:
        """Add a reason about one annotation."""
        self.report_name(verdict, annotation.name, message)

    def report_name(self, verdict: Verdict, name: str, message: str) -> None:
        """Add a reason about an annotation that may be unknown."""
        path = f'metadata.annotations["{self.prefix}/{readers.printable(name)}"]'
        self.reasons.append(Reason(self.about, verdict, path, message))

    def close(self, annotation: Annotation[Any], why: str | ValueError) -> None:
        """Close the Ingress because of one annotation, or of the object that it names."""
        self.report(Verdict.WAITING if isinstance(why, UnreadError) else Verdict.CLOSED, annotation, str(why))
        self.outcome = gravest(self.outcome, InvalidValue.CLOSE)

    def close_by_name(self, name: str, why: str) -> None:
        """Close the Ingress because of an annotation that is not declared."""
        self.report_name(Verdict.CLOSED, name, why)
        self.outcome = gravest(self.outcome, InvalidValue.CLOSE)


def read_annotations(about: ObjectKey, texts: Mapping[str, str], prefix: str) -> Annotations:
    """Return the annotations of an Ingress; those with another prefix are ignored."""
    result = Annotations(about, prefix)
    start = f"{prefix}/"
    unknown = []
    for key in sorted(texts):
        if not key.startswith(start):
            continue
        name = key.removeprefix(start)
        if (annotation := ANNOTATIONS.get(name)) is not None:
            _read(annotation, texts[key], result)
        elif name in SNIPPETS:
            result.snippets[name] = texts[key]
        elif (without_effect := UNSUPPORTED.get(name)) is not None:
            if texts[key].strip() not in without_effect.fulfilled_by:
                result.report_name(without_effect.verdict, name, without_effect.message)
        else:
            unknown.append(name)
    _report_unknown(unknown, result)
    if start != PREFIX:
        _report_strays(texts, result)
    return result


def _read(annotation: Annotation[Any], text: str, result: Annotations) -> None:
    try:
        if len(text) > _SHORT and len(text.encode("utf-8", "replace")) > readers.MAX_VALUE:
            raise ValueError(f"longer than {readers.MAX_VALUE} bytes")  # noqa: TRY301 - reported like any other
        read = _read_before if len(text) <= _SHORT else _value
        result.values[annotation] = read(annotation, text.strip(" \t"))
    except EmptyValueError as error:
        result.report(Verdict.IGNORED, annotation, str(error))
    except ValueError as error:
        result.failed.add(annotation)
        result.report(annotation.invalid.value, annotation, str(error))
        result.outcome = gravest(result.outcome, annotation.invalid)


def _value(annotation: Annotation[Any], text: str) -> Any:
    return annotation.read(text)


_read_before: Final = lru_cache(4096)(_value)
"""Many Ingresses of a cluster have the same values. A value cannot change, so one serves all that have its text."""


def _report_unknown(names: list[str], result: Annotations) -> None:
    for name in names[:MAX_UNKNOWN]:
        meant = question(name, [*ANNOTATIONS, *UNSUPPORTED])
        result.report_name(Verdict.UNSUPPORTED, name, f"no such annotation in any release of ingress-nginx{meant}")
    if len(names) > MAX_UNKNOWN:
        more = len(names) - MAX_UNKNOWN
        result.report_name(Verdict.UNSUPPORTED, names[MAX_UNKNOWN], f"this one and {more - 1} more are unknown too")


def _report_strays(texts: Mapping[str, str], result: Annotations) -> None:
    """Report annotations with the prefix that rulegen's own annotations of a Service have: an Ingress has none."""
    strays = [key for key in sorted(texts) if key[: len(PREFIX)].lower() == PREFIX]
    for key in strays[:MAX_UNKNOWN]:
        near = get_close_matches(key[len(PREFIX) :][:100], ANNOTATIONS, 1)
        meant = f'; did you mean "{result.prefix}/{near[0]}"?' if near else ""
        path = f'metadata.annotations["{readers.printable(key)}"]'
        message = f"annotations of an Ingress begin with {result.prefix}/ here{meant}"
        result.reasons.append(Reason(result.about, Verdict.UNSUPPORTED, path, message))
