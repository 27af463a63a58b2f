"""Why an Ingress, or a part of it, is not served as specified."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import total_ordering
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rulegen.kube.objects.names import ObjectKey


class Verdict(enum.StrEnum):
    """What happened to an Ingress, or to a part of it, that is not served as specified."""

    REJECTED = "rejected"
    """Nothing of the Ingress is served."""
    CLOSED = "closed"
    """Its paths answer 503. Otherwise they would be open without the protection that was requested."""
    IGNORED = "ignored"
    """The value has no meaning, so the default applies."""
    UNSUPPORTED = "unsupported"
    """The value requests something that the engine cannot do, or that rulegen never does."""
    LOST = "lost"
    """An older Ingress has the same host, path or name."""
    UNAVAILABLE = "unavailable"
    """A path answers 503 or 404, because it has no usable backend."""
    REFUSED = "refused"
    """An endpoint is not used: its address belongs to the node, the cluster or the cloud."""
    DEFAULT_CERTIFICATE = "default certificate"
    """A host is served with the default certificate."""
    SKIPPED = "skipped"
    """The Ingress belongs to another class."""
    OVER_LIMIT = "over a limit"
    """Its namespace has reached a limit: nothing of the Ingress is served."""
    QUARANTINED = "quarantined"
    """The engine rejects the configuration that contains it."""
    WAITING = "waiting"
    """An object that it refers to could not be read yet. Until then its previous version is served, or it is closed."""
    NOTE = "note"
    """It is served as specified, but users might expect something else."""

    __hash__ = str.__hash__  # faster than that of enum; each reason is hashed

    @property
    def is_remark(self) -> bool:
        """Whether the Ingress is served as specified nevertheless."""
        return self is Verdict.NOTE

    @property
    def deviates(self) -> bool:
        """Whether something that rulegen should serve is not served as specified."""
        return self not in {Verdict.NOTE, Verdict.SKIPPED}


@total_ordering
@dataclass(frozen=True, slots=True)
class Reason:
    """Why an object is not served as specified; sorted by the object's name.

    Attributes:
        about: The object; None if the reason is about all of them, or about an object that they refer to.
        path: The field, for example `spec.rules[0].host`; empty for the whole object.
    """

    about: ObjectKey | None
    verdict: Verdict
    path: str
    message: str

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        who = f"{self.about} ({self.verdict}): " if self.about else ""
        return f"{who}{where}{self.message}"

    def __lt__(self, other: Reason) -> bool:
        return self.rank < other.rank

    @property
    def rank(self) -> tuple[str, ...]:
        """Sort key."""
        kind, name = (self.about.kind, str(self.about.name)) if self.about else ("", "")
        return name, self.verdict, self.path, self.message, kind
