"""What HAProxy logs about its servers reaches the agent; everything else does not."""

from __future__ import annotations

import contextlib
import os

import pytest

from rulegen.host.userspace.health_log import HealthLog, ServerHealth, read

DOWN = ', reason: Layer4 connection problem, info: "Connection refused", check duration: 0ms.'


@pytest.mark.parametrize(
    ("said", "known"),
    [
        (f"Server demo.web.http.v4/10.0.0.1_80 is DOWN{DOWN}", ServerHealth("demo.web.http.v4", "10.0.0.1:80", False)),
        ("Server a.b.c.v6.a60/fd00::1_80 is UP, reason: x", ServerHealth("a.b.c.v6.a60", "[fd00::1]:80", True)),
        ("Server spare3.v4/10.0.0.1_80 is UP.", ServerHealth("spare3.v4", "10.0.0.1:80", True)),
        (f"Server demo.web.http.v4/10.0.0.1_80_fallback is DOWN{DOWN}", None),
        ("Server demo.web.http.v4/10.0.0.1_80 is UP (leaving forced maintenance).", None),
        ("Server demo.web.http.v4/10.0.0.1_800000 is DOWN.", None),
        ("backend demo.web.http.v4 has no server available!", None),
    ],
)
def test_a_line_of_haproxy_is_passed_on_if_it_is_about_health(said, known):
    log = HealthLog()
    with contextlib.ExitStack() as closed:
        closed.callback(log.close)
        os.write(log.writes, f"{said}\n".encode()[:20])
        assert list(log.lines()) == []
        os.write(log.writes, f"{said}\nServer".encode()[20:])
        assert [read(line) for line in log.lines()] == ([known] if known else [])
        assert list(map(read, log.ejected())) == ([known] if known and not known.is_up else [])


def test_the_next_supervisor_reads_on():
    log, later = HealthLog(), HealthLog()
    with contextlib.ExitStack() as closed:
        closed.callback(later.close)
        os.close(log.descriptor)
        later.adopt(f"/proc/self/fd/{log.writes}")
        os.write(log.writes, b"Server a.b.c.v4/10.0.0.1_80 is DOWN.\n")
        os.close(log.writes)
        assert [read(line) for line in later.lines()] == [ServerHealth("a.b.c.v4", "10.0.0.1:80", is_up=False)]
