"""What is said of a server that several threads ask at the same time."""

from __future__ import annotations

import threading

from rulegen.apiserver.transport.failures import ApiError
from rulegen.apiserver.transport.reasons import ApiReason
from rulegen.apiserver.watching.outage import Outage, OutageNotice
from tests.apiserver.watching import fast


def test_trouble_is_logged_before_its_end_by_a_slow_log_too():
    said: list[bool] = []
    begun, released = threading.Event(), threading.Event()

    def say(notice: OutageNotice) -> None:
        if not notice.is_well:
            begun.set()
            released.wait(30)
        said.append(notice.is_well)

    outage = Outage("https://server", fast(notice=0.0), say)
    failure = ApiError("no answer", ApiReason.CONNECTION)
    first = threading.Thread(target=outage.failed, args=("a", failure, lambda: None))
    first.start()
    assert begun.wait(30)
    second = threading.Thread(target=outage.good, args=("a",))
    second.start()
    second.join(0.2)
    released.set()
    first.join(30)
    second.join(30)
    assert said == [False, True]
