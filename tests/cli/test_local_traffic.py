"""A configuration by which pods' traffic cannot be recognised: said wherever it is used, and before a guard goes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rulegen.cli.main import main
from rulegen.host.commands.runner import Command, Completed
from rulegen.host.doctor import checks
from rulegen.host.doctor.findings import Level
from rulegen.model.services.options import Options
from rulegen.net import parse_network
from tests.agent.stage import Stage, changed, endpoints, node, service
from tests.cli.test_plan import BLOG, HOST

NODE = """\
---
apiVersion: v1
kind: Node
metadata: {name: node1}
status: {addresses: [{type: InternalIP, address: 192.168.50.10}]}
"""
CONFIG = "{apiVersion: kubeproxy.config.k8s.io/v1alpha1, kind: KubeProxyConfiguration, clusterCIDR: 10.244.0.0/16}\n"
SAID = (
    "local traffic cannot be recognised, because there is no clusterCIDR: connections to ClusterIPs are not masqueraded"
)
LOST = "this removes rules that masquerade connections to ClusterIPs (IPv4)"
FILES = ("-f", "blog.yaml", "--host", "host")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "blog.yaml").write_text(BLOG + NODE)
    (tmp_path / "host").write_text(HOST)
    (tmp_path / "config").write_text(CONFIG)
    (tmp_path / "without").write_text(CONFIG.replace("clusterCIDR", "bindAddress").replace("10.244.0.0/16", "0.0.0.0"))
    return tmp_path


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]):
    def call(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            main(list(arguments))
        printed = capsys.readouterr()
        return stop.value.code or 0, printed.out + printed.err

    return call


@pytest.mark.parametrize("mode", ["iptables", "ipvs"])
@pytest.mark.parametrize("more", [(), ("--config", "config", "--cluster-cidr", ""), ("--config", "without")])
def test_a_plan_warns_that_pods_cannot_be_recognised(run, mode, more):
    code, out = run("plan", *FILES, "--observed", "none", "--mode", mode, *more)
    assert code == 0
    assert SAID in out
    assert "Give kube-proxy's configuration (--config) or the Pod network (--cluster-cidr)" in out
    assert LOST not in out  # nothing is there that could be lost


def test_so_does_an_export(run):
    assert SAID in run("export", *FILES, "-o", "out")[1]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--cluster-cidr", "10.244.0.0/16"), ""),
        (("--detect-local-mode", "BridgeInterface", "--pod-bridge-interface", "cbr0"), ""),
        (("--detect-local-mode", "NodeCIDR", "--node", "other"), "because there is no Node object with podCIDRs"),
        (
            ("--masquerade-all",),
            "because there is no clusterCIDR: for externalTrafficPolicy Local, Pods count as outside clients",
        ),
    ],
)
def test_only_a_missing_configuration_causes_the_warning(run, more, said):
    _, out = run("plan", *FILES, "--observed", "none", *more)
    assert ("local traffic cannot be recognised" in out, said in out) == (bool(said), True)


@pytest.mark.parametrize("mode", ["iptables", "ipvs"])
@pytest.mark.parametrize(
    "before",
    [
        ("--config", "config"),
        ("--masquerade-all",),
        ("--detect-local-mode", "InterfaceNamePrefix", "--pod-interface-name-prefix", "veth"),
    ],
)
def test_a_plan_that_removes_masquerading_says_so(run, mode, before):
    run("export", *FILES, "--mode", mode, *before, "-o", "out")
    assert LOST not in run("plan", *FILES, "--mode", mode, *before, "--observed", "out")[1]
    _, out = run("plan", *FILES, "--mode", mode, "--observed", "out")
    [line] = [line for line in out.splitlines() if LOST in line]
    assert "the configuration has no clusterCIDR (or what detectLocalMode needs)" in line


def test_a_service_that_goes_takes_its_own_rules_without_a_word(run, folder):
    run("export", *FILES, "--config", "config", "-o", "out")
    (folder / "blog.yaml").write_text(NODE)
    assert LOST not in run("plan", *FILES, "--observed", "out")[1]


@pytest.mark.kernel
@pytest.mark.parametrize("variant", ["nft", "legacy"])
@pytest.mark.slow
def test_apply_says_so_before_it_removes_masquerading(folder, variant):
    if os.geteuid() != 0 or not shutil.which(f"iptables-{variant}"):
        pytest.skip("needs root, network namespaces and iptables")
    apply = f"{sys.executable} -m rulegen apply {' '.join(FILES)} --yes --variant {variant}"
    count = f"iptables-{variant}-save | grep -c 'KUBE-SVC.*! -s 10.244.0.0/16.*KUBE-MARK-MASQ'"
    script = f"ip link set lo up; {apply} --config config && {count}; echo second; {apply}; {count}"
    environment = {**os.environ, "XTABLES_LOCKFILE": str(folder / "lock")}
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script], capture_output=True, text=True, check=False, env=environment
    )
    first, _, second = done.stdout.partition("second\n")
    assert (first.splitlines()[-1], second.splitlines()[-1]) == ("1", "0"), done.stderr
    assert LOST not in first
    assert second.index(LOST) < second.index("Applied: ")


@pytest.mark.not_quick
def test_the_agent_logs_it_as_a_warning_of_its_own():
    objects = [changed(node()), changed(service("web")), changed(endpoints("web", 1))]
    before = Stage()
    before.at(0, *objects)
    before.run()
    stage = Stage(kernels=before.writer.kernels)
    stage.desired.options = Options(node_name="node1")
    stage.at(0, *objects)
    stage.run()
    warnings = [line for line in stage.log if "WARNING" in line]
    assert any(SAID in line for line in warnings)
    assert len([line for line in warnings if LOST in line]) == 1


def printed(rules: str):
    """Return what runs tools on a host whose iptables-nft holds these rules of nat, and nothing else is there."""

    def run(command: Command) -> Completed:
        is_asked = command.argv[0] == "iptables-nft-save"
        return Completed(0, f"*nat\n{rules}COMMIT\n" if is_asked else "")

    return run


MASQUERADES = (
    "-A KUBE-SVC-A ! -s 10.244.0.0/16 -d 10.96.0.1/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ\n",
    "-A KUBE-SERVICES ! -s 10.244.0.0/16 -m set --match-set KUBE-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ\n",
)
MASQUERADES_NOT = (
    "-A KUBE-SVC-A -j KUBE-SEP-B\n",
    "-A KUBE-SERVICES -m set --match-set KUBE-CLUSTER-IP src,dst -j KUBE-MARK-MASQ\n",
)


@pytest.mark.parametrize(
    ("rules", "level"),
    [*((rule, Level.OK) for rule in MASQUERADES), *((rule, Level.WARN) for rule in MASQUERADES_NOT)],
)
def test_doctor_looks_at_the_rules(rules, level):
    patient = checks.HostProbe(printed(rules), options=Options(cluster_cidrs=(parse_network("10.244.0.0/16"),)))
    findings = list(checks.check_local_traffic(patient))
    assert [finding.level for finding in findings] == [Level.OK, level]


def test_doctor_without_rules_and_configuration_warns():
    [finding] = checks.check_local_traffic(checks.HostProbe(printed("")))
    assert (finding.level, "no clusterCIDR is given" in finding.message) == (Level.WARN, True)
    assert "--config FILE" in finding.hint


@pytest.mark.not_quick
def test_doctor_takes_a_configuration_and_refuses_what_is_none(run, folder):
    assert "recognised by clusterCIDR 10.244.0.0/16" in run("doctor", "--config", "config")[1]
    code, out = run("doctor", "--cluster-cidr", "bogus")
    assert code == 1
    assert out.startswith("Error: --cluster-cidr: 'bogus' is not a CIDR such as ")
