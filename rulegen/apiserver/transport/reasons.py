"""Why the API server gave no good answer, as a closed list: what follows from a failure depends on this alone."""

from __future__ import annotations

import enum


class ApiReason(enum.StrEnum):
    """Of which sort a failure is; the value is the label of counters."""

    CONNECTION = "connection"
    """There was none, or it broke before an answer."""
    TIMEOUT = "timeout"
    TLS = "tls"
    CREDENTIALS = "credentials"
    """They cannot be read, so nothing was asked."""
    CUT = "cut"
    """The answer broke off, or we ended it."""
    TOO_LARGE = "too large"
    TOO_MANY = "too many"
    """More objects than may be kept."""
    GARBAGE = "garbage"
    """The answer is not what an API server says."""
    ENCODED = "encoded"
    """The answer is compressed, which was not requested."""
    EXPIRED = "expired"
    """The server no longer knows the resourceVersion: list again."""
    ERROR_EVENT = "error event"
    SHORT = "short"
    """A watch ended as soon as it had begun."""
    SET_BACK = "set back"
    """The server went back to an older state."""
    INTERNAL = "internal"
    """A defect of rulegen."""
    STATUS = "status"
    """An HTTP status, which `ApiError.status` has."""

    @property
    def needs_list(self) -> bool:
        """Whether a watch cannot go on: all is listed anew."""
        return self in {ApiReason.EXPIRED, ApiReason.GARBAGE, ApiReason.TOO_LARGE}
