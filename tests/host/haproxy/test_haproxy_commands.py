"""rulegen's commands and the agent serve Ingresses with a real HAProxy."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from rulegen.host.haproxy import status
from rulegen.host.haproxy.program import HAPROXY
from rulegen.host.proxy import process_list
from rulegen.host.proxy.processes import supervision
from tests.apiserver.watching import soon
from tests.cli.ingress.test_ingress import HOST, ingress, world
from tests.rights import needs_root
from tests.servers.fakeapi import FakeApi

pytestmark = [pytest.mark.slow, needs_root]

PROJECT = Path(__file__).parents[3]
NOUNS = {"Service": "services", "EndpointSlice": "endpointslices", "Ingress": "ingresses"}
PORTS = ("--http-port", "8080", "--https-port", "8443")
ENGINE = ("--ingress", "--ingress-engine", "haproxy", "--no-services")

PICKY = """\
#!/bin/sh
# HAProxy, which also rejects a host in the way in which it rejects other things: by a line of the main file
case " $* " in
*" -c "*)
    folder=$(echo "$*" | sed 's/.*-C \\([^ ]*\\).*/\\1/')
    name=$(sed -n 's/^bad[.]test //p' "$folder/maps/hosts.map")
    backend=$(sed -n "s,^$name/ ,,p" "$folder/maps/prefix.map")
    line=$(grep -n "^backend $backend\\$" "$folder/haproxy.cfg" | cut -d: -f1)
    if [ -n "$name" ]; then
        echo "[ALERT]    (1) : config : parsing [haproxy.cfg:$((line + 1))] : not this host" >&2
        exit 1
    fi ;;
esac
exec "$(PATH=$PATH:/usr/sbin command -v haproxy)" "$@"
"""


@pytest.fixture
def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(PROJECT), "RULEGEN_DEBUG": "1", "NO_PROXY": "*"}


@pytest.fixture
def run(folder: Path, namespace: None, tmp_path: Path, environment: dict[str, str]) -> Callable[..., tuple[int, str]]:
    (tmp_path / "host").write_text(HOST)

    def call(verb: str, *more: str, hosts: tuple[str, ...] = ("shop.test",)) -> tuple[int, str]:
        manifests = world(*(ingress(host.partition(".")[0], host) for host in hosts))
        (tmp_path / "objects.yaml").write_text(yaml.safe_dump_all(manifests))
        given = ("--host", "host", "-f", "objects.yaml", *PORTS) if verb in {"plan", "apply"} else ()
        argv = [sys.executable, "-m", "rulegen", verb, *ENGINE, "--haproxy-dir", str(folder), *given, *more]
        done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return call


def statuses(*hosts: str) -> list[int]:
    """Return the status of each host; 503 is that of a host whose endpoints are in another network."""
    results = []
    for host in hosts:
        with socket.create_connection(("127.0.0.1", 8080), timeout=10) as connection:
            connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            results.append(int(connection.makefile("rb").readline().split()[1]))
    return results


def test_commands_plan_apply_and_remove(run, folder):
    code, out = run("plan", "--detailed-exitcode")
    assert (code, "+ file haproxy.cfg" in out, folder.exists()) == (2, True, False)

    code, out = run("apply", "--yes")
    assert (code, "haproxy started in" in out) == (0, True), out
    assert statuses("shop.test", "other.test") == [503, 404]
    assert run("plan", "--detailed-exitcode")[0] == 0

    code, out = run("apply", "--yes", hosts=("shop.test", "blog.test"))
    assert (code, "haproxy updated in" in out) == (0, True), out
    assert statuses("shop.test", "blog.test") == [503, 503]

    code, out = run("cleanup", "--yes")
    assert (code, f"haproxy in {folder} has stopped" in out) == (0, True), out
    assert not folder.exists()
    assert HAPROXY.processes(folder) == ()


def test_what_somebody_changed_is_in_the_plan(run, folder):
    run("apply", "--yes")
    hosts = folder / "current" / "maps" / "hosts.map"
    hosts.write_text(hosts.read_text() + "evil.test h0\n")

    code, out = run("plan", "--detailed-exitcode", "-o", "json")

    assert (code, "evil.test h0" in json.dumps(json.loads(out))) == (2, True)
    assert run("apply", "--yes")[0] == 0
    assert "evil" not in hosts.read_text()


def test_a_haproxy_that_was_killed_with_its_supervisor_is_in_the_plan(run, folder):
    run("apply", "--yes")
    os.kill(supervision.supervisor_pid(folder), signal.SIGKILL)
    for process in HAPROXY.processes(folder):
        process_list.send(process, signal.SIGKILL)
    assert soon(lambda: not HAPROXY.processes(folder))

    code, out = run("plan", "--detailed-exitcode")
    assert (code, "does not run" in out) == (2, True), out
    assert run("apply", "--yes")[0] == 0
    assert statuses("shop.test") == [503]


def test_an_ingress_that_haproxy_rejects_is_left_out(run, folder, tmp_path):
    picky = tmp_path / "haproxy-picky"
    picky.write_text(PICKY)
    picky.chmod(0o755)
    hosts = ("shop.test", "bad.test", "blog.test", "last.test")
    code, out = run("apply", "--yes", "--haproxy-binary", str(picky), hosts=hosts)
    assert (code, "haproxy rejects it: parsing [haproxy.cfg:" in out) == (0, True), out
    assert statuses("shop.test", "blog.test", "last.test", "bad.test") == [503, 503, 503, 404]


def test_the_agent_serves_follows_and_ends(folder, namespace, tmp_path, environment):
    with FakeApi() as api:
        for item in world(ingress("web", "shop.test")):
            api.put(NOUNS[item["kind"]], item)
        kubeconfig = api.kubeconfig(tmp_path)
        (tmp_path / "host").write_text(HOST)
        argv = [sys.executable, "-m", "rulegen", "run", *ENGINE, *PORTS, "--haproxy-dir", str(folder)]
        argv += ["--kubeconfig", kubeconfig, "--host", "host", "--no-events", "--no-update-status"]
        with (tmp_path / "log").open("w") as log:
            agent = subprocess.Popen(
                [*argv, "--health-address", "", "--metrics-address", ""], cwd=tmp_path, env=environment, stderr=log
            )
            try:
                assert soon(lambda: status.serves(folder), 120), (tmp_path / "log").read_text()
                assert statuses("shop.test", "blog.test") == [503, 404]
                api.put("ingresses", ingress("blog", "blog.test"))
                assert soon(lambda: statuses("blog.test") == [503], 60), (tmp_path / "log").read_text()
                # It is served before it is in the files.
                assert soon(lambda: "haproxy updated" in (tmp_path / "log").read_text(), 60)
                agent.send_signal(signal.SIGTERM)
                assert agent.wait(60) == 0
            finally:
                agent.kill()
                agent.wait()
    text = (tmp_path / "log").read_text()
    assert "haproxy started" in text
    assert "haproxy updated" in text
    assert HAPROXY.processes(folder) == ()
