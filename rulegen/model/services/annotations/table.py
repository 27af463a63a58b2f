"""The table of all annotations of Services, and warnings about unknown names with rulegen's prefix."""

from __future__ import annotations

from difflib import get_close_matches
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from rulegen.model.services.annotations.annotation import PREFIX, ServiceAnnotation
from rulegen.model.services.annotations.proxy_mode import PROXY_MODE
from rulegen.model.services.annotations.scheduler import SCHEDULER
from rulegen.model.services.annotations.weights import WEIGHTS
from rulegen.text import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rulegen.kube.objects.structs import Service

_DECLARED: Final[tuple[ServiceAnnotation[Any], ...]] = (SCHEDULER, WEIGHTS, PROXY_MODE)
ANNOTATIONS: Final[Mapping[str, ServiceAnnotation[Any]]] = MappingProxyType(
    {annotation.name: annotation for annotation in _DECLARED}
)
"""Keyed by name, with the prefix."""

_NAMES: Final = tuple(name.removeprefix(PREFIX) for name in ANNOTATIONS)
_MOST_UNKNOWN: Final = 10


def warn_of_unknown(service: Service, where: str, warn: Callable[[str], None]) -> None:
    """Warn about each unknown annotation with rulegen's prefix; suggest the most similar known name."""
    keys = service.metadata.annotations
    if not keys:
        return
    unknown = [key for key in sorted(keys) if key not in ANNOTATIONS and _is_ours(key)]
    for key in unknown[:_MOST_UNKNOWN]:
        near = get_close_matches(key[len(PREFIX) :][:100].lower(), _NAMES, 1)
        meant = f'did you mean "{PREFIX}{near[0]}"?' if near else f"expected one of {', '.join(ANNOTATIONS)}"
        warn(f"{where}: metadata.annotations[{quoted(key)}]: unknown annotation of a Service; {meant}")
    if len(unknown) > _MOST_UNKNOWN:
        warn(f"{where}: metadata.annotations: {len(unknown) - _MOST_UNKNOWN} more under {PREFIX} are unknown too")


def _is_ours(key: str) -> bool:
    return key[: len(PREFIX)].lower() == PREFIX
