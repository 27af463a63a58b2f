"""Reads the annotations of one Ingress: their values and their faults."""

from __future__ import annotations

from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, field

from rulegen.model.ingress.reasons import Reason, Verdict
from rulegen.model.ingress.unread import UnreadError
from rulegen.model.ingress.values import readers
from rulegen.model.ingress.values.annotations.annotation import Annotation, AnnotationValues, InvalidValue, gravest
from rulegen.model.ingress.values.annotations.routing import CANARY
from rulegen.model.ingress.values.annotations.table import ANNOTATIONS
from rulegen.model.ingress.values.annotations.unsupported import SNIPPETS, UNSUPPORTED
from rulegen.model.ingress.values.classes import DEFAULT_PREFIX
from rulegen.model.ingress.values.empty import EmptyValueError
from rulegen.model.ingress.values.readers import TRUE
from rulegen.model.ingress.values.setting import PartialValueError
from rulegen.model.ingress.values.without_effect.names import question
from rulegen.model.services.annotations.annotation import PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.kube.objects.names import ObjectKey

MAX_UNKNOWN: Final = 50
"""Maximum number of unknown annotations of one Ingress that are reported individually."""

_SHORT: Final = 200
"""Maximum length of a text whose value is cached."""


class Annotations(Struct):
    """The annotations of one Ingress.

    Attributes:
        about: The Ingress.
        values: Values of the valid annotations.
        failed: Invalid annotations.
        snippets: Text of each snippet, by its name.
        outcome: The most severe effect of invalid values and of unusable referenced objects.
        reasons: Reports about annotations that are invalid or have no effect.
    """

    about: ObjectKey
    prefix: str = DEFAULT_PREFIX
    values: AnnotationValues = field(default_factory=AnnotationValues)
    failed: set[Annotation[Any]] = field(default_factory=set)
    snippets: dict[str, str] = field(default_factory=dict)
    outcome: InvalidValue = InvalidValue.IGNORE
    reasons: list[Reason] = field(default_factory=list)

    def report(self, verdict: Verdict, annotation: Annotation[Any], message: str) -> None:
        """Report something about an annotation."""
        self.report_name(verdict, annotation.name, message)

    def report_name(self, verdict: Verdict, name: str, message: str) -> None:
        """Report something about an annotation by its name, which may be unknown."""
        path = f'metadata.annotations["{self.prefix}/{readers.printable(name)}"]'
        self.reasons.append(Reason(self.about, verdict, path, message))

    def close(self, annotation: Annotation[Any], why: str | ValueError) -> None:
        """Close the Ingress because of an annotation or the object that it names."""
        self.report(Verdict.WAITING if isinstance(why, UnreadError) else Verdict.CLOSED, annotation, str(why))
        self.outcome = gravest(self.outcome, InvalidValue.CLOSE)

    def close_by_name(self, name: str, why: str) -> None:
        """Close the Ingress because of an annotation that is not declared, such as a snippet."""
        self.report_name(Verdict.CLOSED, name, why)
        self.outcome = gravest(self.outcome, InvalidValue.CLOSE)


def read_annotations(about: ObjectKey, texts: Mapping[str, str], prefix: str) -> Annotations:
    """Read the annotations of an Ingress; those with another prefix are ignored."""
    result = Annotations(about, prefix)
    start = f"{prefix}/"
    is_canary = texts.get(f"{start}{CANARY.name}", "").strip() in TRUE
    unknown = []
    for key in sorted(texts):
        if not key.startswith(start):
            continue
        name = key.removeprefix(start)
        if (annotation := ANNOTATIONS.get(name)) is not None:
            _read(annotation, texts[key], result, is_canary=is_canary)
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


def _read(annotation: Annotation[Any], text: str, result: Annotations, *, is_canary: bool) -> None:
    try:
        if len(text) > _SHORT and len(text.encode("utf-8", "replace")) > readers.MAX_VALUE:
            raise ValueError(f"longer than {readers.MAX_VALUE} bytes")  # noqa: TRY301 - reported like any other
        read = _read_before if len(text) <= _SHORT else _value
        result.values[annotation] = read(annotation, text if annotation.is_exact else text.strip(" \t"))
    except EmptyValueError as error:
        result.report(Verdict.IGNORED, annotation, str(error))
    except PartialValueError as error:
        result.values[annotation] = error.value
        result.report(Verdict.IGNORED, annotation, str(error))
    except ValueError as error:
        invalid, why = annotation.invalid, str(error)
        if is_canary and invalid is InvalidValue.REJECT and not annotation.name.startswith(CANARY.name):
            # Such an annotation decides where requests go, and those of a canary go where the main Ingress says.
            invalid, why = InvalidValue.IGNORE, f"{why}; it has no effect in a canary"
        result.failed.add(annotation)
        result.report(invalid.value, annotation, why)
        result.outcome = gravest(result.outcome, invalid)


def _value(annotation: Annotation[Any], text: str) -> Any:
    return annotation.read(text)


_read_before: Final = lru_cache(4096)(_value)
"""Many Ingresses have equal values. Values are immutable, so they can share one."""


def _report_unknown(names: list[str], result: Annotations) -> None:
    for name in names[:MAX_UNKNOWN]:
        meant = question(name, [*ANNOTATIONS, *UNSUPPORTED])
        result.report_name(Verdict.UNSUPPORTED, name, f"no such annotation in any release of ingress-nginx{meant}")
    if len(names) > MAX_UNKNOWN:
        more = len(names) - MAX_UNKNOWN
        result.report_name(Verdict.UNSUPPORTED, names[MAX_UNKNOWN], f"this one and {more - 1} more are unknown too")


def _report_strays(texts: Mapping[str, str], result: Annotations) -> None:
    """Report annotations with the prefix of rulegen's annotations for Services, which have no effect on an Ingress."""
    strays = [key for key in sorted(texts) if key[: len(PREFIX)].lower() == PREFIX]
    for key in strays[:MAX_UNKNOWN]:
        near = get_close_matches(key[len(PREFIX) :][:100], ANNOTATIONS, 1)
        meant = f'; did you mean "{result.prefix}/{near[0]}"?' if near else ""
        path = f'metadata.annotations["{readers.printable(key)}"]'
        message = f"annotations of an Ingress begin with {result.prefix}/ here{meant}"
        result.reasons.append(Reason(result.about, Verdict.UNSUPPORTED, path, message))
