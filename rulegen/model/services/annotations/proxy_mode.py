"""`rulegen.io/proxy-mode`: a Service that the proxy of the node serves, in any mode of the node."""

from __future__ import annotations

from typing import Final

from rulegen.errors import Fault
from rulegen.model.services.annotations.annotation import InvalidAnnotationError, ServiceAnnotation
from rulegen.model.services.modes import NEEDS
from rulegen.text import quoted

_WITH_PROXY: Final = tuple(mode for mode, needs in NEEDS.items() if needs.has_proxy)


def _read(text: str) -> bool:
    """Return true for the name of a mode with a proxy.

    Raises:
        InvalidAnnotationError: It is another text.
    """
    if text not in _WITH_PROXY:
        expected = f"; expected {' or '.join(_WITH_PROXY)}"
        raise InvalidAnnotationError([Fault("", f": {quoted(text)} is not a mode of a single Service{expected}")])
    return True


PROXY_MODE: Final = ServiceAnnotation(
    "proxy-mode",
    _read,
    default=False,
    documentation="`userspace`: the userspace proxy serves this Service, see"
    " [userspace.md](userspace.md#one-service-beside-another-mode); with another value, the mode of the node does",
    otherwise="the mode of the node serves it",
)
