"""A node that the cluster does not know: nothing is written for it, by whatever way its name came to be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rulegen.cli.main import main
from rulegen.kube.node_names import SHOWN, read_node_name, unknown_node
from tests.cli.test_plan import BLOG, HOST
from tests.servers.fakeapi import FakeApi

NODES = """\
---
apiVersion: v1
kind: Node
metadata: {name: web-1}
status: {addresses: [{type: InternalIP, address: 192.168.50.10}]}
---
apiVersion: v1
kind: Node
metadata: {name: db-1}
"""
CONFIG = "{apiVersion: kubeproxy.config.k8s.io/v1alpha1, kind: KubeProxyConfiguration, hostnameOverride: %s}\n"
BAD_NAMES = ("", " ", "web_1", "-web", "web-", "web..1", "a" * 254, "web 1", "web\n1", "wéb", "web/1", "../web")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "blog.yaml").write_text(BLOG)
    (tmp_path / "nodes.yaml").write_text(NODES)
    (tmp_path / "host").write_text(HOST)
    return tmp_path


def no_write(*_: object, **__: object) -> None:
    raise AssertionError("this host would have been written to")


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Call rulegen where no tool can be started: whoever goes on to read or write the kernel fails."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("rulegen.host.commands.runner.SYSTEM_FOLDERS", ())
    monkeypatch.setattr("rulegen.cli.commands.apply.write", no_write)

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(list(arguments))
        printed = capsys.readouterr()
        return stop.value.code or 0, printed.out, printed.err

    return call


@pytest.mark.parametrize("mode", ["iptables", "ipvs"])
def test_apply_rejects_an_unknown_node_and_names_the_known_ones(run, mode):
    code, out, err = run(
        *("apply", "-f", "blog.yaml", "-f", "nodes.yaml", "--host", "host", "--node", "wbe-1"),
        *("--mode", mode, "--yes"),
    )
    assert (code, out) == (1, "")
    assert "there is no Node wbe-1; did you mean web-1? The Nodes are web-1, db-1" in err
    assert "Next: give this node's name with --node" in err
    assert "--allow-unknown-node" in err


def test_files_without_any_node_are_refused_alike(run):
    code, out, err = run("apply", "-f", "blog.yaml", "--host", "host", "--node", "web-1", "--yes")
    assert (code, out) == (1, "")
    assert "there are no Node objects, so Node web-1 is unknown" in err


def test_an_invalid_node_object_is_reported_with_its_faults(run, folder):
    (folder / "bad.yaml").write_text("{apiVersion: v1, kind: Node, metadata: {name: web-1}, spec: {podCIDR: [1]}}")
    code, _, err = run("apply", "-f", "blog.yaml", "-f", "bad.yaml", "--host", "host", "--node", "web-1", "--yes")
    assert code == 1
    assert "spec.podCIDR" in err


def test_apply_refuses_a_node_that_the_api_server_does_not_know(run, folder):
    with FakeApi() as api:
        api.put("nodes", {"metadata": {"name": "web-1"}}, {"metadata": {"name": "db-1"}})
        kubeconfig = api.kubeconfig(folder)
        code, out, err = run("apply", "--kubeconfig", kubeconfig, "--host", "host", "--node", "wbe-1", "--yes")
    assert (code, out) == (1, "")
    assert "there is no Node wbe-1; did you mean web-1? The Nodes are web-1, db-1" in err


def test_a_plan_shows_what_it_would_be_and_warns(run):
    code, out, _ = run(
        "plan", "-f", "blog.yaml", "-f", "nodes.yaml", "--host", "host", "--node", "wbe-1", "--observed", "none"
    )
    assert code == 0
    assert "there is no Node wbe-1; did you mean web-1?" in out


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("command", ["plan", "apply", "export", "run"])
def test_a_name_that_no_node_can_have_is_an_error(run, command, name):
    code, out, err = run(command, "--node", name)
    assert (code, out) == (1, "")
    assert "cannot be the name of a Node" in err


@pytest.mark.parametrize("name", [name for name in BAD_NAMES if name])
def test_so_it_is_in_a_configuration(run, folder, name):
    (folder / "config").write_text(CONFIG % f'"{name.encode("unicode_escape").decode()}"')
    code, out, err = run("plan", "-f", "blog.yaml", "--config", "config", "--host", "host", "--observed", "none")
    assert (code, out) == (1, "")
    assert "hostnameOverride" in err
    assert "cannot be the name of a Node" in err


@pytest.mark.parametrize(
    ("host", "message"), [("{}", "this node's name is unknown"), ("hostname: my_host", '"my_host" cannot be')]
)
@pytest.mark.parametrize("more", [("--observed", "none"), ("--observed", "none", "--no-services", "--ingress")])
def test_a_host_whose_name_no_node_can_have_needs_another_one(run, folder, host, message, more):
    (folder / "host").write_text(host)
    code, out, err = run("plan", "-f", "blog.yaml", "--host", "host", *more)
    assert (code, out) == (1, "")
    assert message in err
    assert "Next: name the Node with --node" in err
    assert run("plan", "-f", "blog.yaml", "--host", "host", "--node", "web-1", *more)[0] == 0


def test_blanks_and_capitals_are_read_as_kube_proxy_reads_them(run):
    code, out, _ = run(
        "plan", "-f", "blog.yaml", "-f", "nodes.yaml", "--host", "host", "--node", " Web-1 ", "--observed", "none"
    )
    assert code == 0
    assert "there is no Node" not in out


NAMES = st.text("abc019", min_size=1, max_size=6)


@given(st.lists(NAMES, unique=True, max_size=2 * SHOWN), NAMES)
def test_each_node_is_listed_or_counted_the_nearest_first(names, asked):
    text = unknown_node(asked, names)
    assert "\n" not in text
    listed = text.partition("The Nodes are ")[2].partition(" and ")[0].split(", ") if names else []
    assert set(listed) <= set(names)
    assert len(listed) == min(len(names), SHOWN)
    if len(names) > SHOWN:
        assert text.endswith(f" and {len(names) - SHOWN} more")
    if asked in names:
        assert listed[0] == asked


@pytest.mark.not_quick
@given(st.text())
def test_a_name_is_read_or_refused(text):
    try:
        name = read_node_name(text)
    except ValueError as error:
        name, message = "", str(error)
        assert message.isprintable()
    assert name in ("", text.strip().lower())


@pytest.fixture
def isolated() -> list[str]:
    """The beginning of a command line that runs in a network namespace of its own."""
    if os.geteuid() != 0 or not shutil.which("iptables-nft") or not shutil.which("unshare"):
        pytest.skip("needs root, network namespaces and iptables")
    return ["unshare", "--net", "sh", "-c", 'ip link set lo up; "$@"; echo "exit $?"; iptables-nft-save', "sh"]


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("more", "code", "writes"),
    [(("wbe-1",), 1, False), (("wbe-1", "--allow-unknown-node"), 0, True), (("web-1",), 0, True)],
)
@pytest.mark.slow
def test_a_kernel_is_written_only_for_a_known_node_by_default(folder, isolated, more, code, writes):
    files = ("-f", str(folder / "blog.yaml"), "-f", str(folder / "nodes.yaml"), "--host", str(folder / "host"))
    command = (sys.executable, "-m", "rulegen", "apply", *files, "--yes", "--variant", "nft", "--node", *more)
    environment = {**os.environ, "XTABLES_LOCKFILE": str(folder / "lock")}
    done = subprocess.run([*isolated, *command], capture_output=True, text=True, env=environment, check=False)
    assert f"exit {code}" in done.stdout
    assert ("KUBE-SERVICES" in done.stdout.partition(f"exit {code}")[2]) is writes
