"""The requests of cases: what goes over the wire for each key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from integration.ingress import spaces
from integration.ingress.asking import Asker, Reply, Request, basic_auth
from integration.ingress.forms import known
from integration.ingress.forms.cookies import Jar
from integration.ingress.objects import UnknownForm

Jars = dict[str, Jar]
"""The cookies of each client of a case: `cookie_jar: true` is one client, and each name is another one."""


def send(client: Asker, request: Mapping[str, Any], jars: Jars) -> list[Reply]:
    """Send what a case asks for; with a `repeat`, that often, with a `burst`, all at once.

    Raises:
        UnknownForm: A key of the request is not known, or its value means nothing here.
    """
    if unknown := list(known.request_faults(request)):
        raise UnknownForm(f"request: {'; '.join(unknown)}")
    count, at_once = request.get("repeat", 1), request.get("burst", False)
    jar = _jar(request.get("cookie_jar", False), jars)
    replies: list[Reply] = []
    for entry in requests(request):
        if jar is not None:
            replies += [_with_cookies(client, entry, jar) for _ in range(count)]
        elif at_once:
            replies += client.burst(entry, count)
        else:
            replies += client.repeat(entry, count)
    return replies


def _jar(given: bool | str, jars: Jars) -> Jar | None:
    if given is False:
        return None
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
    is_secure = request.get("tls", False)
    body = b"b" * request.get("body_bytes", 0)
    protocols = request.get("alpn", ())
    # Nothing is encoded or resolved here, so there is no difference between a raw path and another.
    rest: dict[str, Any] = {
        "target": request["path"],
        "method": request.get("method", "POST" if body else "GET"),
        "headers": headers,
        "body": body,
        "alpn": (protocols,) if isinstance(protocols, str) else tuple(protocols),
        "name": host.partition(":")[0].rstrip(".") if is_secure else None,
    }
    if host:
        return [Request(host=host, **rest)]
    return [Request(host=spaces.NODE, **rest), Request(host=None, **rest)]
