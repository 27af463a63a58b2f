"""Cookies that a client keeps, as RFC 6265 has it, as far as cases need it."""

from __future__ import annotations

from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from integration.ingress.asking import Reply, Request

_LONG_AGO = 0


@dataclass
class Jar:
    """The cookies of one client, by host, path and name."""

    _kept: dict[tuple[str, str, str], tuple[str, bool]] = field(default_factory=dict)

    def header(self, request: Request) -> str:
        """Return the header `Cookie` for a request; empty where no cookie is sent with it."""
        host, path = _host(request), request.target.partition("?")[0]
        return "; ".join(
            f"{name}={value}"
            for (of, below, name), (value, is_secure) in self._kept.items()
            if of == host and _is_below(path, below) and (request.name is not None or not is_secure)
        )

    def keep(self, request: Request, reply: Reply) -> None:
        """Keep what an answer sets, and drop what it ends."""
        for line in reply.all("Set-Cookie"):
            pair, *rest = (part.strip() for part in line.split(";"))
            name, _, value = pair.partition("=")
            attributes = {key.lower(): text for key, _, text in (part.partition("=") for part in rest)}
            key = _host(request), attributes.get("path", "/") or "/", name
            self._kept.pop(key, None)
            if not _is_over(attributes):
                self._kept[key] = value, "secure" in attributes


def _host(request: Request) -> str:
    return (request.host or "").partition(":")[0].lower()


def _is_below(path: str, cookie_path: str) -> bool:
    return path == cookie_path or path.startswith(cookie_path.rstrip("/") + "/")


def _is_over(attributes: dict[str, str]) -> bool:
    if "max-age" in attributes:
        return int(attributes["max-age"]) <= 0
    return "expires" in attributes and parsedate_to_datetime(attributes["expires"]).timestamp() <= _LONG_AGO
