"""Settings for all hosts, and what each must come to on every way: each way is asked about all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from integration.ingress import objects
from integration.ingress.clients import Ask
from integration.ingress.crossed.pairs import Row
from integration.ingress.crossed.sites import FACTORS, host_of, is_possible, proofs, world
from integration.ingress.features import SECOND_CLIENT, World
from integration.ingress.objects import Document

NOTHING = "nothing"

WAYS: Mapping[str, tuple[str, ...]] = {**FACTORS, "feature": (NOTHING,)}

CONFIG = {
    "global-auth-url": "http://crossed-guard.default.svc.cluster.local/cookie-auth",
    "denylist-source-range": SECOND_CLIENT,
    "add-headers": "default/crossed-added",
    "proxy-set-headers": "default/crossed-sent",
    "hide-headers": "X-Secret",
    "proxy-body-size": "1k",
    "custom-http-errors": "418",
    "block-user-agents": "~*evil",
    "no-auth-locations": "/free",
}


def is_way(row: Row) -> bool:
    """Tell whether a row is a way; where nobody is behind it, another answers what is asked here."""
    return is_possible(row) and row["backend"] not in {"nobody", "gone"}


def settings_world(documents: tuple[Document, ...]) -> World:
    """Return the world with these settings."""
    named = (
        objects.config_map("crossed-added", {"X-Added": "ours"}),
        objects.config_map("crossed-sent", {"X-Sent": "ours"}),
    )
    return World(
        name="crossed-settings",
        config=CONFIG,
        flags={"default-backend-service": "default/errors"},
        documents=(*world(), *named, *documents),
    )


def asks(number: int, row: Row) -> Iterator[Ask]:
    """Yield a request for each setting."""
    cookie = {"Cookie": "auth=ok"}
    common: dict[str, Any] = {
        "host": host_of(number, row),
        "path": f"/r{number}",
        "tls": row["scheme"] == "https",
    }
    passes = {**cookie, **proofs(row), **({"X-Canary": "always"} if row["role"] == "canary" else {})}
    answered = {
        "status": 200,
        "headers": {"X-Added": "ours"},
        "headers_absent": ["X-Secret"],
        "backend_sees": {"headers": {"X-Sent": "ours"}},
    }
    yield Ask(
        **common, headers={**passes, "X-Lab-Respond": json.dumps({"X-Secret": "1", "X-Added": "theirs"})}, want=answered
    )
    yield Ask(**common, headers={key: passes[key] for key in passes if key != "Cookie"}, want={"status": 401})
    yield Ask(**common, headers=passes, source=SECOND_CLIENT, want={"status": 403})
    yield Ask(**common, headers={**passes, "User-Agent": "an Evil one"}, want={"status": 403})
    yield Ask(**common, headers=passes, method="POST", body=bytes(1025), want={"status": 413})
    replaced = {"backend": "errors", "backend_sees": {"headers": {"X-Code": "418"}}}
    yield Ask(**common, headers={**passes, "X-Lab-Status": "418"}, want=replaced)
