"""An ingress engine that the tests alone have is one row: rulegen's own commands plan, deploy, observe and end it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.apiserver.watching import soon
from tests.cli.ingress.test_ingress import HOST, ingress, world
from tests.engines.engine import REFUSED
from tests.engines.text import Line, parse
from tests.servers.fakeapi import FakeApi

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[3]
ENGINE = ("--ingress", "--ingress-engine", "tiny", "--no-services")
NOUNS = {"Service": "services", "EndpointSlice": "endpointslices", "Ingress": "ingresses"}
SHOP = Line("shop.test", "/", "10.244.1.1:80")


def words(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.engines", *arguments]


@pytest.fixture
def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(PROJECT), "RULEGEN_DEBUG": "1", "NO_PROXY": "*"}


@pytest.fixture
def run(tmp_path: Path, environment: dict[str, str]) -> Callable[..., tuple[int, str]]:
    (tmp_path / "host").write_text(HOST)
    (tmp_path / "objects.yaml").write_text(
        yaml.safe_dump_all(world(ingress("web", "shop.test"), ingress("bad", REFUSED)))
    )

    def call(verb: str, *more: str) -> tuple[int, str]:
        given = ("--host", "host", "-f", "objects.yaml") if verb in {"plan", "apply", "export"} else ()
        done = subprocess.run(
            words(verb, *given, *more), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr

    return call


def served(folder: Path) -> frozenset[Line]:
    file = folder / "tiny" / "tiny.conf"
    return parse(file.read_text()) if file.exists() else frozenset()


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_ingress_whose_hosts_cannot_be_read_stops_no_other(run, tmp_path, form):
    objects, good = tmp_path / "objects.yaml", ingress("web", "shop.test")
    objects.write_text(yaml.safe_dump_all(world(good, ingress("bad", ["bad.test"]))))
    code, out = run("apply", *ENGINE, "--yes", "-o", form)
    assert code == 0
    assert SHOP in served(tmp_path)
    assert "hosts of Ingresses could not be read, so what they restrict may be open: Ingress demo/bad" in out


@pytest.mark.slow
def test_an_engine_of_the_tests_is_served_by_the_commands(run, tmp_path):
    code, out = run("plan", *ENGINE, "--detailed-exitcode")
    assert (code, "Ingress: tiny will be started (tiny, which serves nothing yet)" in out) == (2, True)
    assert "+ route shop.test/" in out
    assert f"tiny rejects it: no host {REFUSED}" in out
    assert not (tmp_path / "tiny").exists()

    code, out = run("apply", *ENGINE, "--yes", "-o", "json")
    assert (code, json.loads(out[: out.rindex("}") + 1])["applied"]) == (0, ["tiny started"])
    assert SHOP in served(tmp_path)
    code, out = run("plan", *ENGINE, "--detailed-exitcode")
    assert (code, "Ingress: tiny does not need a reload" in out) == (0, True)

    (tmp_path / "tiny" / "tiny.conf").write_text("shop.test / = 192.0.2.1:80\n")
    code, out = run("plan", *ENGINE, "-o", "json", "--detailed-exitcode")
    changes = json.loads(out[: out.rindex("}") + 1])["changes"]
    assert (code, {change["language"] for change in changes}) == (2, {"tiny"})
    out = run("apply", *ENGINE, "--yes", "-o", "json")[1]
    assert json.loads(out[: out.rindex("}") + 1])["applied"] == ["tiny updated"]
    assert SHOP in served(tmp_path)

    code, out = run("cleanup", *ENGINE, "--yes")
    assert (code, "tiny in tiny has stopped" in out) == (0, True)
    assert not (tmp_path / "tiny").exists()


@pytest.mark.slow
def test_strict_apply_writes_nothing_if_an_ingress_deviates(run, tmp_path):
    code, out = run("apply", *ENGINE, "--yes", "--strict", "-v")
    assert (code, "+ route shop.test/" in out) == (3, True)
    assert not (tmp_path / "tiny").exists()
    code, out = run("apply", *ENGINE, "--yes", "--strict", "-o", "json")
    assert (code, json.JSONDecoder().raw_decode(out)[0]["applied"]) == (3, [])
    assert not (tmp_path / "tiny").exists()


@pytest.mark.slow
def test_an_engine_of_the_tests_is_exported_and_has_its_options(run, tmp_path):
    code, out = run("export", "--tiny", "out")
    assert (code, "out/tiny.conf" in out) == (0, True)
    assert SHOP in parse((tmp_path / "out" / "tiny.conf").read_text())
    assert "--tiny-dir" in run("plan", "--help")[1]
    assert "--ingress-engine [nginx|haproxy|tiny]" in " ".join(run("apply", "--help")[1].split())
    assert "tinyd is not installed (routes of tiny)" in run("doctor")[1]
    assert run("plan", "--ingress", "--ingress-engine", "other")[0] == 1


@pytest.mark.slow
def test_the_agent_serves_through_an_engine_of_the_tests(tmp_path, environment):
    """It starts the engine, follows a change without a reload, and ends it at SIGTERM."""
    with FakeApi() as api:
        for item in world(ingress("web", "shop.test")):
            api.put(NOUNS[item["kind"]], item)
        kubeconfig = api.kubeconfig(tmp_path)
        (tmp_path / "host").write_text(HOST)
        arguments = ("run", *ENGINE, "--kubeconfig", kubeconfig, "--host", "host", "--no-events", "--no-update-status")
        with (tmp_path / "log").open("w") as log:
            agent = subprocess.Popen(
                words(*arguments, "--health-address", "", "--metrics-address", ""),
                cwd=tmp_path,
                env=environment,
                stderr=log,
            )
            try:
                assert soon(lambda: SHOP in served(tmp_path), 120), (tmp_path / "log").read_text()
                api.put("ingresses", ingress("blog", "blog.test"))
                assert soon(lambda: Line("blog.test", *SHOP[1:]) in served(tmp_path))
                agent.send_signal(signal.SIGTERM)
                assert agent.wait(60) == 0
            finally:
                agent.kill()
                agent.wait()
    text = (tmp_path / "log").read_text()
    assert "tiny started" in text
    assert "tiny updated" in text
    assert "tiny drained" in text
    assert not served(tmp_path)
