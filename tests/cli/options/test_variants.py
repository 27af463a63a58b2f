"""Rules of a proxy in both variants of iptables, on a real kernel: warned of by all, removed by cleanup in one go."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from rulegen.cli.main import main
from rulegen.host.commands import runner
from rulegen.host.dataplane.kernel import KernelDataplane
from rulegen.host.netfilter.variant import Variant
from rulegen.model.host.facts import HostFacts
from rulegen.model.services.options import Options
from rulegen.model.services.stale_flows import StaleUdpPolicy
from tests.cli.test_consent import BLOG
from tests.cli.test_plan import HOST
from tests.host.conftest import namespace  # noqa: F401 - a fixture

pytestmark = pytest.mark.kernel
GIVEN = ("-f", "blog.yaml", "--host", "host", "--nfacct", "off")


@pytest.fixture
def run(tmp_path: Path, capsys, monkeypatch, namespace):  # noqa: F811 - nothing is run outside of it
    monkeypatch.chdir(tmp_path)
    Path("blog.yaml").write_text(BLOG)
    Path("host").write_text(HOST)

    def call(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in arguments])
        printed = capsys.readouterr()
        return stop.value.code or 0, printed.out + printed.err

    return call


@pytest.fixture
def other(run, variant: Variant) -> Variant:
    """Have rules in one variant, and return the other."""
    code, out = run("apply", *GIVEN, "--variant", variant, "--yes")
    assert code == 0, out
    return variant.other


@pytest.fixture(params=list(Variant))
def variant(request: pytest.FixtureRequest) -> Variant:
    return request.param


def rules(variant: Variant) -> int:
    """Return how many rules and chains of ours one variant has, of both families."""
    saved = [
        subprocess.run([f"{tool}-{variant}-save"], capture_output=True, text=True, check=True).stdout
        for tool in ("iptables", "ip6tables")
    ]
    return sum("KUBE-" in line for text in saved for line in text.splitlines())


def test_plan_apply_and_run_warn_of_rules_in_the_other_variant(run, variant, other):
    advice = f"`rulegen cleanup --variant {variant}`"
    for command in (("plan",), ("apply", "--yes")):
        code, out = run(*command, *GIVEN, "--variant", other)
        assert code == 0
        assert f"iptables-{variant} has " in out
        assert advice in out
    writer = KernelDataplane.of_host(runner.run, HostFacts(), other, StaleUdpPolicy.NONE, Options())
    assert advice in writer.beside
    assert run("cleanup", "--variant", variant, "--yes")[0] == 0
    assert advice not in run("plan", *GIVEN, "--variant", other)[1]
    assert KernelDataplane.of_host(runner.run, HostFacts(), other, StaleUdpPolicy.NONE, Options()).beside == ""


def test_cleanup_removes_both_variants_or_the_given_one(run, variant, other):
    run("apply", *GIVEN, "--variant", other, "--yes")
    before = rules(variant)
    code, out = run("cleanup", "--variant", other, "--yes")
    assert (code, rules(other), rules(variant)) == (0, 0, before)
    assert f"iptables-{variant} has " in out
    run("apply", *GIVEN, "--variant", other, "--yes")
    code, out = run("cleanup", "--yes", "-o", "json")
    assert (code, rules(Variant.NFT), rules(Variant.LEGACY)) == (0, 0, 0)
    document = json.loads(out)
    assert {change["variant"] for change in document["changes"]} == {None, "legacy"}
    assert document["warnings"] == []
    assert run("cleanup")[0] == 0  # nothing is left, so nobody is asked


def test_cleanup_removes_what_was_left_for_a_former_kubelet(run, variant, other):
    canary = ("-t", "mangle", "-w", "5")
    subprocess.run([f"iptables-{variant}", *canary, "-N", "KUBE-KUBELET-CANARY"], check=True)
    assert run("cleanup", "--yes")[0] == 0
    assert rules(variant) > 1, "the chain that a kubelet shares stays beside its canary"
    subprocess.run([f"iptables-{variant}", *canary, "-X", "KUBE-KUBELET-CANARY"], check=True)
    code, out = run("cleanup", "--yes")
    assert (code, rules(variant), rules(other)) == (0, 0, 0), out


def test_cleanup_keeps_chains_of_a_kubelet_in_the_other_variant(run, variant, other):
    subprocess.run([f"iptables-{other}", "-t", "mangle", "-w", "5", "-N", "KUBE-KUBELET-CANARY"], check=True)
    subprocess.run([f"iptables-{other}", "-w", "5", "-N", "KUBE-FIREWALL"], check=True)
    assert run("cleanup", "--yes")[0] == 0
    assert rules(other) > 1
    assert run("cleanup")[0] == 0
