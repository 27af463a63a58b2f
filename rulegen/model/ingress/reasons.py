"""What became of an Ingress, or of a part of it, that is not served as it was written."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import total_ordering
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rulegen.kube.objects.names import ObjectKey


class Verdict(enum.StrEnum):
    """What became of an Ingress, or of a part of it, that is not served as it was written."""

    REJECTED = "rejected"
    """Nothing of the Ingress is served."""
    CLOSED = "closed"
    """Its paths answer 503, as serving them would leave open what was to be protected."""
    IGNORED = "ignored"
    """The value means nothing, so the default holds."""
    UNSUPPORTED = "unsupported"
    """The value means something that nginx here cannot do, or that is never done."""
    LOST = "lost"
    """An older Ingress has the same host, path or name."""
    UNAVAILABLE = "unavailable"
    """A path answers 503 or 404, as there is nothing behind it."""
    REFUSED = "refused"
    """An endpoint is not used: its address is the node's, the cluster's or the cloud's own, and no backend."""
    DEFAULT_CERTIFICATE = "default certificate"
    """A host is served with the default certificate."""
    SKIPPED = "skipped"
    """The Ingress is of another class."""
    OVER_LIMIT = "over a limit"
    """Its namespace has more than is served: nothing of the Ingress is."""
    QUARANTINED = "quarantined"
    """nginx does not accept the configuration with it."""
    WAITING = "waiting"
    """Something that it refers to could not be read yet: it is served as before, or what depends on it is closed."""
    NOTE = "note"
    """Served as written, but not as many would think."""

    __hash__ = str.__hash__  # that of enum is Python code, and each reason is hashed

    @property
    def is_remark(self) -> bool:
        """Whether the Ingress is served as written."""
        return self is Verdict.NOTE

    @property
    def deviates(self) -> bool:
        """Whether something that is ours is not served as written."""
        return self not in {Verdict.NOTE, Verdict.SKIPPED}


@total_ordering
@dataclass(frozen=True, slots=True)
class Reason:
    """Why an object that requests routes is not served as it was written; sorted by the object's name.

    Attributes:
        about: The object; None if the reason is about all of them, or about what they refer to.
        path: The field, as `spec.rules[0].host`; empty for the object as a whole.
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
        """What reasons are sorted by."""
        kind, name = (self.about.kind, str(self.about.name)) if self.about else ("", "")
        return name, self.verdict, self.path, self.message, kind
