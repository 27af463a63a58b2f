"""A master of HAProxy that hangs: its worker serves, and takes what needs no reload."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import shutil
import signal

import pytest

from rulegen.compiler.ingress.engine import DeployAction
from rulegen.errors import ApplyError
from rulegen.host.commands.runner import run
from rulegen.host.haproxy import status
from rulegen.host.haproxy.engine import HaproxyEngine
from rulegen.host.haproxy.pending import HINDERED_S
from rulegen.host.haproxy.program import HANGS, HAPROXY
from rulegen.host.haproxy.service import HaproxyService
from rulegen.host.proxy import process_list
from rulegen.host.proxy.processes import supervision
from rulegen.host.proxy.service import HinderedError
from rulegen.model.ingress.defaults import HttpHost
from tests.apiserver.watching import soon
from tests.host.haproxy.running import (
    HTTP,
    HTTPS,
    POD,
    answers,
    ask,
    is_as_on_disk,
    web,
    workers,
)
from tests.rights import needs_root
from tests.strategies.ingresses import ingress, options, rule, site, world

pytestmark = [pytest.mark.slow, needs_root]

SLOW = ingress("slow", rule("slow.test"), annotations={"proxy-read-timeout": "7"})
"""An Ingress that needs a reload."""


@pytest.fixture
def late(engine) -> HaproxyEngine:
    """Return the engine; the reload before never delays the next one."""
    times = itertools.count(100, 100)
    engine.clock = lambda: float(next(times))
    return engine


@pytest.fixture
def impatient(monkeypatch) -> None:
    """Have HAProxy not waited for long."""
    for function in (status.ask, status.serves, status.worker_serves):
        monkeypatch.setitem(function.__kwdefaults__, "timeout_s", 0.3)


def master(engine: HaproxyEngine) -> int:
    known = process_list.master(HAPROXY.processes(engine.service.folder))
    assert known is not None
    return known.pid


@pytest.mark.usefixtures("impatient")
def test_a_stopped_master_delays_only_what_needs_a_reload(serve, late):
    serve(*web(1), site())
    stopped, before = master(late), workers(late)
    os.kill(stopped, signal.SIGSTOP)
    assert (late.is_serving, late.hindrance) == (True, HANGS)
    waiting = late.deploy(late.check(world(*web(2), site(), SLOW), late.observe()))
    assert (waiting.action, waiting.again_s) == (DeployAction.UPDATED, HINDERED_S)
    assert answers() == {POD.format(2)}
    assert ask("slow.test")[0] == 404
    with pytest.raises(HinderedError, match="changes that need a reload wait"):
        serve(*web(2), site(whitelist_source_range="192.0.2.0/24"), SLOW)
    assert serve(*web(3), site(), SLOW) is DeployAction.UPDATED
    assert answers() == {POD.format(3)}
    assert (master(late), workers(late)) == (stopped, before)
    os.kill(stopped, signal.SIGCONT)
    assert soon(lambda: not late.hindrance, 10)
    assert serve(*web(3), site(), SLOW) is DeployAction.RELOADED
    assert [ask("slow.test")[0], *answers()] == [200, POD.format(3)]
    assert is_as_on_disk(late)


WRAPPER = """#!/bin/bash
case " $* " in *" -c "*) ;; *) while [ -e {flag} ]; do sleep 0.05; done ;; esac
exec -a "$0" {haproxy} "$@"
"""
"""HAProxy starts itself again by the name that it was started with."""


@pytest.mark.usefixtures("impatient", "pods")
def test_a_master_that_hangs_within_a_reload_loses_no_worker(folder, tmp_path):
    """It starts itself again, which hangs. A supervisor that starts meanwhile does not start a second HAProxy."""
    flag, wrapper = tmp_path / "hangs", tmp_path / "haproxy-wrapped"
    wrapper.write_text(WRAPPER.format(flag=flag, haproxy=shutil.which("haproxy")))
    wrapper.chmod(0o755)
    host = HttpHost(user="haproxy haproxy", http_port=HTTP, https_port=HTTPS, ipv6=False)
    wrapped = HaproxyService(folder, run, binary=str(wrapper), confirm_s=1)
    engine = HaproxyEngine(wrapped, options(host=host))
    engine.deploy(engine.check(world(*web(1), site()), None))
    served, before = engine.service.releases.live(), workers(engine)
    flag.touch()
    wanted = engine.check(world(*web(1), site(), SLOW), engine.observe())
    engine.reloaded_at = -math.inf
    with pytest.raises(ApplyError, match=f"release {served} is served as before; {HANGS}"):
        engine.deploy(wanted)
    assert (engine.is_serving, engine.hindrance, workers(engine)) == (True, HANGS, before)
    hanging = master(engine)
    os.kill(supervision.supervisor_pid(folder), signal.SIGKILL)
    assert soon(lambda: supervision.ensure(folder, str(wrapper), HAPROXY), 10)
    assert soon(lambda: f"haproxy {hanging} is already running" in (folder / "logs/keeper.log").read_text(), 10)
    assert answers() == {POD.format(1)}
    assert (master(engine), workers(engine)) == (hanging, before)
    flag.unlink()

    def is_served() -> bool:
        with contextlib.suppress(HinderedError):  # it reloads once more, for the request that it has missed
            engine.deploy(wanted)
        return ask("slow.test")[0] == 200

    assert soon(is_served, 10)
    assert [*answers(), master(engine)] == [POD.format(1), hanging]
