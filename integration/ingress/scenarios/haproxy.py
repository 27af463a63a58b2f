"""What only HAProxy does with the servers of a Service: health checks, retries after an answer, queues."""

from __future__ import annotations

import time

from integration.ingress.cast import site
from integration.ingress.clients import Ask
from integration.ingress.features import Scenario, Stage
from integration.ingress.scenarios.plain import plain

_SETTLED_S = 20.0


def _only_healthy_ones(stage: Stage) -> object:
    """An endpoint whose checks fail gets no requests any more; it is noticed after three checks."""
    deadline = time.monotonic() + _SETTLED_S
    while True:
        replies = stage.client.ask_all(Ask(host="checked.test", times=12))
        statuses = {reply.status for reply in replies}
        if statuses == {200}:
            return None
        if time.monotonic() > deadline:
            return f"after {_SETTLED_S:.0f} s still {sorted(statuses)}"
        time.sleep(0.5)


SCENARIOS: tuple[Scenario, ...] = (
    plain(
        "health-checks",
        [
            site(
                "checked.test",
                {"health-check-path": "/", "health-check-interval": "1", "proxy-next-upstream": "off"},
                "half-broken",
            )
        ],
        then=_only_healthy_ones,
    ),
    plain(
        "retry-on-502",
        [
            site("retried.test", {"retry-on": "conn-failure 502"}, "half-broken"),
            site("not-retried.test", {"retry-on": "conn-failure"}, "half-broken"),
        ],
        Ask(host="retried.test", times=10, want={"status": 200}),
        Ask(host="not-retried.test", times=10, want={"statuses": [200, 502]}),
    ),
    plain(
        "requests-wait-in-a-queue",
        [site("queued.test", {"max-connections": "1"}, "other")],
        Ask(host="queued.test", path="/sleep/0.3", times=4, at_once=True, want={"status": 200}),
    ),
)
"""These are served by HAProxy only."""
