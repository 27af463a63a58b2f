"""Why a request to the API server failed, as a closed list: the reaction to a failure depends on this alone."""

from __future__ import annotations

import enum


class ApiReason(enum.StrEnum):
    """The kind of a failure; the value is the label of counters."""

    CONNECTION = "connection"
    """There was no connection, or it broke before an answer."""
    TIMEOUT = "timeout"
    TLS = "tls"
    CREDENTIALS = "credentials"
    """The credentials cannot be read, so no request was sent."""
    CUT = "cut"
    """The answer ended early, or rulegen ended it."""
    TOO_LARGE = "too large"
    TOO_MANY = "too many"
    """More objects than may be kept."""
    GARBAGE = "garbage"
    """The answer is not that of an API server."""
    ENCODED = "encoded"
    """The answer is compressed, which was not requested."""
    EXPIRED = "expired"
    """The server no longer knows the resourceVersion: list again."""
    ERROR_EVENT = "error event"
    SHORT = "short"
    """A watch ended as soon as it had begun."""
    SET_BACK = "set back"
    """The server has returned to an older state."""
    INTERNAL = "internal"
    """A defect of rulegen."""
    STATUS = "status"
    """An HTTP status, which `ApiError.status` has."""

    @property
    def needs_list(self) -> bool:
        """Whether a watch cannot continue, so that all objects are listed again."""
        return self in {ApiReason.EXPIRED, ApiReason.GARBAGE, ApiReason.TOO_LARGE}
