"""What became of an Ingress, or of a part of it, that is not served as it was written."""

from __future__ import annotations

import enum
from dataclasses import dataclass


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


@dataclass(frozen=True, slots=True, order=True)
class Reason:
    """One thing that a user must be told about an Ingress.

    Attributes:
        ingress: `namespace/name`; empty where it is about all Ingresses, or about what they refer to.
        path: The field, as `spec.rules[0].host`; empty for the Ingress as a whole.
    """

    ingress: str
    verdict: Verdict
    path: str
    message: str

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        who = f"Ingress {self.ingress} ({self.verdict}): " if self.ingress else ""
        return f"{who}{where}{self.message}"
