"""The syntax of names in Kubernetes: labels, subdomains, port names (RFC 1035, 1123, 6335; the API conventions)."""

from __future__ import annotations

import re
from typing import Final

PORTS: Final = "1\N{EN DASH}65535"

_LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?\Z")
_SUBDOMAIN: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*\Z")
_PORT_NAME: Final = re.compile(r"(?=.{1,15}\Z)(?=.*[a-z])(?!.*--)[a-z0-9](?:[-a-z0-9]*[a-z0-9])?\Z")
_QUALIFIED: Final = re.compile(
    r"(?:(?=[^/]{1,253}/)[A-Za-z0-9](?:[-A-Za-z0-9]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[-A-Za-z0-9]*[A-Za-z0-9])?)*/)?"
    r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?\Z"
)
_LABEL_VALUE: Final = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?\Z")


def is_label(text: str) -> bool:
    """Return whether `text` is a DNS label (RFC 1123): at most 63 of `a-z0-9-`, no `-` at its ends."""
    return _LABEL.match(text) is not None


def is_subdomain(text: str) -> bool:
    """Return whether `text` is a DNS subdomain (RFC 1123): labels joined by dots, at most 253 characters."""
    return _SUBDOMAIN.match(text) is not None


def is_port_name(text: str) -> bool:
    """Return whether `text` is a port name (RFC 6335): at most 15 of `a-z0-9-`, including a letter."""
    return _PORT_NAME.match(text) is not None


def is_label_value(text: str) -> bool:
    """Return whether `text` is a label value: empty, or at most 63 of `A-Za-z0-9-_.`."""
    return _LABEL_VALUE.match(text) is not None


def is_qualified_name(text: str) -> bool:
    """Return whether `text` is the key of a label or annotation: at most 63 characters, optionally after a domain."""
    return _QUALIFIED.match(text) is not None
