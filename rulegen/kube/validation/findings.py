"""The faults of an object, and checks that all kinds share."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rulegen.errors import Fault
from rulegen.kube.syntax import PORTS, is_label, is_subdomain
from rulegen.net import Family, family_of, parse_address
from rulegen.text import number, quoted

if TYPE_CHECKING:
    from collections.abc import Collection

MAX_ADDRESS: Final = 64
PROTOCOLS: Final = ("TCP", "UDP", "SCTP")

_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_PLAIN_IPV4: Final = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}\Z")


@dataclass(slots=True)
class Findings:
    """Faults that make an object invalid, and invalid entries that are ignored with a warning."""

    faults: list[Fault] = field(default_factory=list)
    ignored: list[Fault] = field(default_factory=list)

    def fault(self, path: str, message: str) -> None:
        """Record a fault that makes the object invalid."""
        self.faults.append(Fault(path, message))

    def ignore(self, path: str, message: str) -> None:
        """Record an invalid entry; the object stays valid without it."""
        self.ignored.append(Fault(path, message))

    def port(self, path: str, value: int, *, least: int = 1) -> None:
        """Check a port number; `least` is 0 if 0 means no port."""
        if not least <= value <= 65535:
            missing = "missing or 0: " if value == 0 else ""
            self.fault(path, f"{missing}a port is {PORTS}" if missing else f"{number(value)} is not a port ({PORTS})")

    def choice(self, path: str, value: str, choices: Collection[str]) -> None:
        """Check a value of an enumeration."""
        if value not in choices:
            self.fault(path, f"{quoted(value)} is not one of {', '.join(choices)}")

    def label(self, path: str, value: str) -> None:
        """Check a name that is a DNS label."""
        if not is_label(value):
            self.fault(path, f'{quoted(value)} is not a valid name: a-z, 0-9 and "-" inside, at most 63 characters')

    def subdomain(self, path: str, value: str) -> None:
        """Check a name that is a DNS subdomain."""
        if not is_subdomain(value):
            self.fault(
                path, f'{quoted(value)} is not a valid name: a-z, 0-9, and "-" and "." inside, at most 253 characters'
            )

    def text(self, path: str, value: str, most: int) -> None:
        """Check that a text can be encoded in at most `most` bytes of UTF-8."""
        try:
            size = len(value) if value.isascii() else len(value.encode())
        except UnicodeEncodeError:  # half of a surrogate pair, which JSON permits
            self.fault(path, f"{quoted(value)} is not Unicode text")
            return
        if size > most:
            self.fault(path, f"{quoted(value)} has {size} bytes, more than {most}")


def family_of_text(text: str) -> Family | None:
    """Return the family of an address, parsed as leniently as in kube-proxy; None if the text is not an address."""
    if _PLAIN_IPV4.match(text):
        return Family.IPV4
    return _family_of_any(text) if len(text) <= MAX_ADDRESS else None


@functools.lru_cache(maxsize=4096)
def _family_of_any(text: str) -> Family | None:
    try:
        return family_of(parse_address(text))
    except ValueError:
        return None
