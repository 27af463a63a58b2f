"""An nginx that hangs at its start is killed after a time limit, and started again."""

from __future__ import annotations

import os
import signal
import sys
from types import SimpleNamespace

import pytest

from rulegen.host.commands.runner import run
from rulegen.host.nginx.service import NginxService
from rulegen.host.proxy.processes import supervision
from tests.host.nginx.test_service import FIRST, get

pytestmark = pytest.mark.slow

SUPERVISOR = """
import sys, pathlib
from rulegen.host.nginx.program import NGINX
from rulegen.host.proxy.processes import supervisor
supervisor._START_S = 1.0
sys.exit(supervisor.main(pathlib.Path(sys.argv[-3]), sys.argv[-2], NGINX))
"""
NGINX_SCRIPT = """#!/bin/sh
case " $* " in *" -t "*) ;; *) [ -e {flag} ] && {{ sleep 600 & exec sleep 600; }} ;; esac
exec /usr/sbin/nginx "$@"
"""


def test_a_start_that_hangs_is_given_up_and_the_cause_recorded(folder, namespace, eventually, monkeypatch, tmp_path):
    python, nginx, flag = (tmp_path / name for name in ("python", "nginx-script", "hangs"))
    program = tmp_path / "supervisor.py"
    program.write_text(SUPERVISOR)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {program} "$@"\n')
    nginx.write_text(NGINX_SCRIPT.format(flag=flag))
    for script in (python, nginx):
        script.chmod(0o755)
    monkeypatch.setattr(supervision, "sys", SimpleNamespace(executable=str(python)))
    service = NginxService(folder, run, binary=str(nginx), confirm_s=10)
    service.apply(FIRST)
    monkeypatch.undo()
    journal = folder / "logs" / "keeper.log"

    flag.touch()
    os.kill(service.status().master, signal.SIGKILL)
    for worker in service._program.processes(folder):
        os.kill(worker.pid, signal.SIGKILL)
    eventually(lambda: "killed, because it had no workers after 1 s" in journal.read_text())
    flag.unlink()

    eventually(lambda: service.status().master and get() == "first")
