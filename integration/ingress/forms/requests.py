"""The requests of cases: what goes over the wire for each key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from integration.ingress import spaces
from integration.ingress.asking import Asker, Reply, Request, basic_auth
from integration.ingress.forms.cookies import Jar
from integration.ingress.objects import UnknownForm

_KNOWN = {"host", "path", "expect", "headers", "repeat", "raw_path", "tls", "method", "basic_auth", "burst"}
_KNOWN |= {"backend_response_headers", "alpn", "cookie_jar", "body_bytes"}

Jars = dict[str, Jar]
"""The cookies of each client of a case: `cookie_jar: true` is one client, and each name is another one."""


def send(client: Asker, request: Mapping[str, Any], jars: Jars) -> list[Reply]:
    """Send what a case asks for; with a `repeat`, that often, with a `burst`, all at once.

    Raises:
        UnknownForm: A key of the request is not known, or its value means nothing here.
    """
    unknown = sorted(request.keys() - _KNOWN)
    if unknown:
        raise UnknownForm(f"keys of a request: {unknown}")
    count, at_once = int(request.get("repeat", 1)), bool(request.get("burst"))
    jar = _jar(request.get("cookie_jar", False), jars)
    if jar is not None and at_once:
        raise UnknownForm("cookie_jar with burst: each answer may set what the next request sends")
    replies: list[Reply] = []
    for entry in requests(request):
        if jar is not None:
            replies += [_with_cookies(client, entry, jar) for _ in range(count)]
        elif at_once:
            replies += client.burst(entry, count)
        else:
            replies += client.repeat(entry, count)
    return replies


def _jar(given: object, jars: Jars) -> Jar | None:
    if given is False:
        return None
    if given is not True and not isinstance(given, str):
        raise UnknownForm(f"cookie_jar: {given!r}")
    return jars.setdefault("" if given is True else given, Jar())


def _with_cookies(client: Asker, request: Request, jar: Jar) -> Reply:
    cookies = "; ".join(filter(None, (jar.header(request), request.headers.get("Cookie", ""))))
    reply = client.ask(replace(request, headers={**request.headers, **({"Cookie": cookies} if cookies else {})}))
    jar.keep(request, reply)
    return reply


def requests(request: Mapping[str, Any]) -> list[Request]:
    """Return what a case's request comes to on the wire: no host means two ways not to name one."""
    headers = dict(request.get("headers", {}))
    if "basic_auth" in request:
        headers |= basic_auth(*request["basic_auth"])
    if "backend_response_headers" in request:
        headers["X-Lab-Respond"] = json.dumps(request["backend_response_headers"])
    host = request["host"]
    is_secure = bool(request.get("tls"))
    body = _body(request)
    # Nothing is encoded or resolved here, so there is no difference between a raw path and another.
    rest: dict[str, Any] = {
        "target": request["path"],
        "method": request.get("method", "POST" if body else "GET"),
        "headers": headers,
        "body": body,
        "alpn": _protocols(request, is_secure=is_secure),
        "name": host.partition(":")[0].rstrip(".") if is_secure else None,
    }
    if host:
        return [Request(host=host, **rest)]
    return [Request(host=spaces.NODE, **rest), Request(host=None, **rest)]


def _body(request: Mapping[str, Any]) -> bytes:
    size = request.get("body_bytes", 0)
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise UnknownForm(f"body_bytes: {size!r}")
    return b"b" * size


def _protocols(request: Mapping[str, Any], *, is_secure: bool) -> tuple[str, ...]:
    given = request.get("alpn", ())
    protocols = (given,) if isinstance(given, str) else tuple(given)
    if not all(isinstance(protocol, str) for protocol in protocols) or (protocols and not is_secure):
        raise UnknownForm(f"alpn: {given!r} {'with' if is_secure else 'without'} tls")
    return protocols
