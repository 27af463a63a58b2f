"""The benchmarks, on worlds so small that their times mean nothing: that they still measure what is there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from integration.bench import __main__ as bench
from integration.bench import worlds
from integration.lab.lab import Unavailable
from tests.rights import needs_root

pytestmark = pytest.mark.xdist_group("bench")

SERVICES = 20


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
    return worlds.write(tmp_path, SERVICES)[1]


def test_plans(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench.plans(world, SERVICES)
    assert "peak memory" in capsys.readouterr().out


@needs_root
@pytest.mark.variants("nft", "legacy")
def test_writes(world: Path, variant: str) -> None:
    results = bench.measured("kernel", str(world), variant, "all", namespace=True)
    assert results["bytes written"] < 5000
    assert bench.measured("kernel", str(world), variant, "unsorted", namespace=True)["one unsorted restore"] > 0


@needs_root
@pytest.mark.usefixtures("world")
def test_the_agent() -> None:
    results = bench.measured("agent", str(SERVICES), "3", "1", "0", namespace=True)
    assert results["commits where nothing changed"] == 0
    assert 0 < results["change, median"] <= results["change, slowest"]
    assert results["memory"] > 10


@needs_root
@pytest.mark.skipif(not shutil.which("nft"), reason="nft is not installed")
@pytest.mark.parametrize("layout", ["flat", "kube-proxy"])
def test_nftables_mode(layout: str) -> None:
    results = bench.measured("nftables", str(SERVICES), layout, "8", namespace=True)
    for what in ("replaced", "fewer or more"):
        assert (results[f"{what}, processes"], results[f"{what}, transactions"]) == (0, 1)
        assert 0 < results[f"{what}, netlink part"] < results[f"{what}, slowest"]


@needs_root
@pytest.mark.usefixtures("world")
def test_pods() -> None:
    results = bench.measured("pods", "pods", "200", "3", "0", namespace=True)
    assert 0 < results["change, median"] <= results["change, slowest"]
    assert results["memory"] > 10


@needs_root
@pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed")
def test_ingresses() -> None:
    results = bench.measured("ingress", "5", "tls", namespace=True, processes=True)
    assert (results["one host: rendered"], results["one host: files"]) == (1, 2)
    assert results["one host: serve"] > 0


@needs_root
@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("haproxy"), reason="haproxy is not installed")
def test_events() -> None:
    results = bench.measured("engines.events", "haproxy", "3", "1", namespace=True, processes=True)
    assert 0 < results["taken, median"] < results["endpoint, median"] + 1
    assert results["engine"] > 1


@needs_root
@pytest.mark.slow
@pytest.mark.usefixtures("world")
@pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed")
@pytest.mark.parametrize(("kind", "one_of"), [("services", "rulegen"), ("ingresses", "nginx master")])
def test_memory(kind: str, one_of: str) -> None:
    collected: dict[str, Any] = dict(bench.measured("memory", kind, "3", "0.5", namespace=True))
    assert collected["after the start"][one_of][0] > 0
    assert collected["after SIGHUP"]["peak of all"] > 10


def test_servers() -> None:
    try:
        results = bench.measured_inside(SERVICES)
    except Unavailable as reason:
        pytest.skip(str(reason))
    assert (results["its messages"], results["its processes"]) == (1, 0)
    assert results["ipvsadm -R"] > 0
