"""Objects whose existence is unknown: whatever depends on them is closed, never opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.errors import ConfigError
from rulegen.kube.objects.names import ObjectKey
from rulegen.model.ingress.reasons import Reason, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.kube.objects.names import ObjectName
    from rulegen.kube.snapshot.world import ClusterSnapshot

UNANSWERED: Final = "the API server has not answered yet"
REFUSED: Final = "the API server denies access to it"
GONE: Final = "it was deleted"
UNUSABLE: Final = "it is invalid now"


class AbsentError(ValueError):
    """An object that an Ingress refers to does not exist."""


class UnreadError(AbsentError):
    """It is unknown whether an object exists: the API server has not answered, or denies access."""


class MissingError(ConfigError):
    """An object that the options or the settings refer to does not exist, or its existence is unknown.

    It may contain access restrictions, so nothing can be decided without it.
    """


def missing(world: ClusterSnapshot, kind: str, name: ObjectName, *, named_by: str) -> MissingError:
    """Return the error for a missing object without which nothing can be decided.

    Args:
        world: The snapshot without the object.
        kind: `ConfigMap` or `Secret`.
        name: Its name.
        named_by: The option, or the key of the settings, that refers to it.
    """
    key = ObjectKey(kind, name)
    why = world.unread.get(key)
    if why:
        return MissingError(f"{key}, which {named_by} refers to: {why}", hint=f"kubectl auth can-i get {kind.lower()}s")
    unusable = next((rejected for rejected in world.rejected if rejected.object == str(key)), None)
    if unusable is not None:
        return MissingError(f"{key}, which {named_by} refers to, cannot be used: {'; '.join(unusable.lines())}")
    looking = f"kubectl get {kind.lower()}s -n {name.namespace}"
    return MissingError(
        f"{key}, which {named_by} refers to, does not exist", hint=f"check its name ({looking}), or create it"
    )


def recalled(world: ClusterSnapshot) -> Iterator[Reason]:
    """Yield one reason for each object whose last known content is still used."""
    for key, why in world.recalled.items():
        if key.kind == "Ingress":
            yield Reason(key, Verdict.WAITING, "", why)
        else:
            verdict = Verdict.NOTE if why in {GONE, UNUSABLE} else Verdict.WAITING
            yield Reason(None, verdict, str(key), f"{why}: its last known content stays in use")
