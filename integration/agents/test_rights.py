"""The agent with just the rights that the manifests give: enough for a life with all that can happen, none too many.

It runs as in its container: root with a bounded set of capabilities, no way to gain others, a root file system that
cannot be written to, and the folders that the manifests mount. The API server lets it do what the manifests' roles say,
and each right is used by it, or by `rulegen plan` in the same Pod. Where the kernel can, no memory is both written to
and executed, as the units of systemd ask for.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from integration import manifests
from integration.agent import Node, network_namespace, until
from integration.blackbox import Variant
from integration.ingress import certificates, objects
from integration.manifests import App
from rulegen.host.nginx.program import NGINX
from rulegen.host.proxy import process_list as processes
from rulegen.host.proxy.disk.log_rotation import LARGEST
from rulegen.host.proxy.processes import supervision
from tests.deploy.kustomize import build
from tests.deploy.places import DEPLOY, KUSTOMIZE
from tests.deploy.test_manifests import agents
from tests.deploy.test_roles import granted as allowed
from tests.deploy.test_units import SANDBOX, capabilities
from tests.rights import needs_mounts, needs_root
from tests.servers.fakeapi import FakeApi

pytestmark = [
    needs_root,
    needs_mounts,
    pytest.mark.slow,
    pytest.mark.xdist_group("agent modes"),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv"),
]
ONE = App(name="one", number=901, ready=("pod-a",), type="NodePort", protocols=("TCP", "UDP"))
TWO = App(name="two", number=902, ready=("pod-a", "pod-b"), type="LoadBalancer", ranges=("10.0.0.0/8",))

INGRESS_UNIT = DEPLOY / "systemd/rulegen-ingress.service"

with_nginx = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")

CONTAINER = """
set -eu
mount --make-rprivate /
mount --bind "$WRITABLE" "$WRITABLE"
mount -t tmpfs none "$WRITABLE/tmp"
mount -o remount,bind,ro /
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
if touch /etc/written 2>/dev/null; then echo "the root can be written to"; exit 1; fi
mount -t tmpfs none /run
exec setpriv --no-new-privs --inh-caps=-all --ambient-caps=-all --bounding-set="$CAPABILITIES" "$@"
"""


NO_WRITABLE_CODE = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""PR_SET_MDWE (prctl(2), Linux 6.3): what MemoryDenyWriteExecute= of the units asks for."""


def granted(what: str) -> list[str]:
    """Return the capabilities that the manifests name."""
    (container,) = agents(build(KUSTOMIZE / "overlays/with-ingress"))[what]["containers"]
    results: list[str] = container["securityContext"]["capabilities"]["add"]
    return results


def confined(node: Node, writable: Path, capabilities: list[str]) -> None:
    """Have the agent of a node run with these capabilities, and write nowhere but below a folder."""
    (writable / "tmp").mkdir()
    node.wrapper = (sys.executable, "-c", NO_WRITABLE_CODE, "unshare", "--mount", "sh", "-c", CONTAINER, "sh")
    node.environment |= {
        "WRITABLE": str(writable),
        "TMPDIR": str(writable / "tmp"),
        "CAPABILITIES": ",".join(["-all", *(f"+{capability.lower()}" for capability in capabilities)]),
    }


@contextmanager
def a_node(capabilities: list[str], variant: Variant = "nft") -> Iterator[tuple[Node, Path]]:
    with network_namespace(), FakeApi() as api, tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)  # nginx's workers are another user
        api.put("nodes", *manifests.nodes())
        node = Node(root, api, variant)
        confined(node, root, capabilities)
        yield node, root


class Role:
    """What the API server lets an account of the manifests do.

    Attributes:
        rights: Group, resource and verb.
    """

    def __init__(self, node: Node, account: str) -> None:
        """Have the API server of a node allow that and nothing else."""
        built = build(KUSTOMIZE / "overlays/with-ingress")
        self.api = node.api
        self.rights = allowed(built, account, everywhere=True) | allowed(built, account, everywhere=False)
        self.api.allows = lambda done: (done[1], done[2], done[0]) in self.rights

    def unused(self) -> set[tuple[str, str, str]]:
        """Return what nothing has used up to now; a request beyond the role is an error."""
        used = {(group, noun, verb) for verb, group, noun in self.api.done}
        assert used <= self.rights
        return self.rights - used


AN_EVENT_AGAIN = {("events.k8s.io", "events", "patch")}
"""Comes after a minute only; tests/deploy/test_roles.py has it."""
RANGES = {("networking.k8s.io", "servicecidrs", "list"), ("networking.k8s.io", "servicecidrs", "watch")}
"""Only nftables mode reads the ranges of ClusterIPs; one role serves all modes."""


def planned(node: Node, *options: str) -> None:
    """Run `rulegen plan` with the rights of the agent."""
    argv = [*node.wrapper, *node.argv("plan", *options)]
    done = subprocess.run(argv, env={**os.environ, **node.environment}, capture_output=True, text=True, check=False)
    assert (done.returncode, "not allowed" in done.stderr) == (0, False), done.stderr


def status(host: str) -> int:
    """Return what nginx answers for a host; 0 where it does not."""
    request = urllib.request.Request("http://127.0.0.1/", headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except (OSError, ConnectionError):
        return 0


def is_served(host: str) -> bool:
    """Whether nginx answers for a host; its backend is nowhere."""
    return status(host) in {502, 504}


def life(node: Node, folder: Path, within_s: float) -> None:
    """Serve, follow changes, survive a killed nginx and a log that grew too large, and end."""
    api = node.api
    node.start_s = int(within_s)
    secret = {"tls.crt": certificates.certificate("shop.test"), "tls.key": certificates.key_pem()}
    api.put("ingressclasses", objects.ingress_class())
    api.put("services", objects.service("echo", "10.96.100.1"))
    api.put("endpointslices", objects.endpoint_slice("echo", ["10.244.100.1"]))
    api.put("secrets", objects.secret("shop", "kubernetes.io/tls", secret))
    api.put("configmaps", objects.config_map("headers", {}))
    quiet = {"ssl-redirect": "false", "custom-headers": "default/headers"}
    api.put("ingresses", objects.ingress("shop", "shop.test", secret="shop", annotations=quiet))
    with node.running("--ingress", "--no-services", "--nginx-dir", str(folder)):
        until(lambda: is_served("shop.test"), within_s, "nginx serves")
        api.put("ingresses", objects.ingress("blog", "blog.test"))
        until(lambda: is_served("blog.test"), within_s, "nginx serves another host")
        assert list(seen_by_agent(node, folder.parent / "tmp")) == [], "a copy of a configuration is left"

        old = NGINX.processes(folder)
        killed = processes.master(old)
        assert killed is not None
        processes.send(killed, signal.SIGKILL)
        until(lambda: fresh(folder, old), within_s, "another nginx has taken over")
        assert is_served("shop.test")

        os.truncate(folder / "logs/access.log", LARGEST + 1)
        until(lambda: (folder / "logs/access.log.1").exists() and written(folder), within_s, "the log was set aside")
        planned(node, "--ingress", "--no-services", "--nginx-dir", str(folder))
        api.put("ingresses", objects.ingress("late", "late.test"))
        until(lambda: is_served("late.test"), within_s, "nginx serves a host after its log was set aside")
    assert NGINX.processes(folder) == ()


def seen_by_agent(node: Node, path: Path) -> Iterator[Path]:
    """Return what lies in a folder as the agent sees it, whose mounts are its own."""
    given = str(node.config).encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if given in words and words[0] == os.fsencode(sys.executable):
                    return (entry / "root" / str(path).lstrip("/")).iterdir()
    raise AssertionError("the agent does not run")


def fresh(folder: Path, old: tuple[processes.ProxyProcess, ...]) -> bool:
    """Whether another master serves with workers of its own, and of the old processes none is left."""
    results = NGINX.processes(folder)
    return bool(processes.master(results)) and bool(processes.workers(results)) and not left(results, old)


def left(results: tuple[processes.ProxyProcess, ...], old: tuple[processes.ProxyProcess, ...]) -> set[tuple[int, int]]:
    """Return which of the old processes are still there; they may have another parent now."""
    return {(entry.pid, entry.started) for entry in results} & {(entry.pid, entry.started) for entry in old}


def written(folder: Path) -> bool:
    """Whether nginx writes to a log of its own again."""
    status("shop.test")
    log = folder / "logs/access.log"
    return log.exists() and log.stat().st_size > 0


@with_nginx
def test_ingresses_are_kept_with_the_rights_of_their_pod() -> None:
    with a_node(granted("ingress")) as (node, root):
        role = Role(node, "rulegen-ingress")
        life(node, root / "nginx", 40)
        assert role.unused() == AN_EVENT_AGAIN


def without(what: str, capability: str) -> list[str]:
    return [entry for entry in granted(what) if entry != capability]


LATER = {"KILL", "DAC_OVERRIDE"}
"""Missed only when something happens to nginx or to its logs."""


@with_nginx
@pytest.mark.parametrize("capability", [entry for entry in granted("ingress") if entry not in LATER])
def test_without_one_capability_no_ingress_is_served(capability: str) -> None:
    with a_node(without("ingress", capability)) as (node, root), serving(node, root / "nginx"):
        until(lambda: node.lines("not served") != [], 60, "it says that it cannot serve")


@with_nginx
def test_without_dac_override_a_rotated_log_stops_changes() -> None:
    """Nginx gives a new log to its workers' user, and opens all logs anew with the next configuration."""
    with a_node(without("ingress", "DAC_OVERRIDE")) as (node, root), serving(node, root / "nginx"):
        folder = root / "nginx"
        until(lambda: is_served("shop.test"), 40, "nginx serves")
        os.truncate(folder / "logs/access.log", LARGEST + 1)
        until(lambda: (folder / "logs/access.log.1").exists() and written(folder), 40, "the log was set aside")
        node.api.put("ingresses", objects.ingress("late", "late.test"))
        until(lambda: node.lines("not served") != [], 60, "it says that it cannot serve")


@with_nginx
def test_without_kill_workers_of_a_killed_nginx_stay() -> None:
    """They hold the ports, and answer with a configuration that nobody changes any more."""
    with a_node(without("ingress", "KILL")) as (node, root), serving(node, root / "nginx"):
        folder = root / "nginx"
        until(lambda: is_served("shop.test"), 40, "nginx serves")
        old = NGINX.processes(folder)
        killed = processes.master(old)
        assert killed is not None
        processes.send(killed, signal.SIGKILL)
        until(lambda: len(processes.workers(NGINX.processes(folder))) > len(processes.workers(old)), 30, "another")
        time.sleep(2)
        assert left(NGINX.processes(folder), old) != set()


WITHOUT_SANDBOX = "tested without a sandbox"


@with_nginx
def test_the_units_capabilities_are_enough_for_the_sandbox() -> None:
    with a_node(sorted(capabilities(INGRESS_UNIT))) as (node, root), serving(node, root / "nginx"):
        until(lambda: is_served("shop.test"), 40, "nginx serves")
        assert node.lines(WITHOUT_SANDBOX) == []


@with_nginx
@pytest.mark.parametrize("capability", sorted(SANDBOX))
def test_without_one_capability_there_is_no_whole_sandbox(capability: str) -> None:
    with (
        a_node(sorted(capabilities(INGRESS_UNIT) - {capability})) as (node, root),
        serving(node, root / "nginx"),
    ):
        until(lambda: node.lines(WITHOUT_SANDBOX) + node.lines("not served") != [], 60, "it says so")


@pytest.mark.variants("nft", "legacy")
def test_services_are_kept_with_the_rights_of_their_pod(variant: Variant) -> None:
    with a_node(granted("services"), variant) as (node, _):
        role = Role(node, "rulegen")
        node.serve(ONE)
        first_sync(node)
        with node.running():
            node.serve(ONE, TWO)
            until(lambda: node.is_well and node.rules.sends_to(TWO, "pod-a", "pod-b"), 20, "another Service")
            node.rules.change("-t", "nat", "-F", "KUBE-SERVICES")
            until(lambda: "KUBE-SVC-" in node.rules.save("-t", "nat"), 20, "rules that others took away are back")
            node.serve(TWO)
            until(lambda: not any("lab/one:" in line for line in node.rules.lines()), 20, "a Service has gone")
            planned(node)
        assert role.unused() == AN_EVENT_AGAIN | RANGES


@pytest.mark.variants("legacy")
@pytest.mark.parametrize("capability", granted("services"))
def test_without_one_capability_no_service_is_written(capability: str, variant: Variant) -> None:
    """iptables-nft needs the first only; which variant a node has, a manifest cannot know."""
    with a_node(without("services", capability), variant) as (node, _):
        node.serve(ONE)
        process = node.start()
        try:
            until(lambda: node.lines("ERROR") != [] or process.poll() is not None, 40, "it says that it cannot write")
            assert "KUBE-SVC-" not in node.rules.save("-t", "nat")
        finally:
            process.terminate()
            process.wait(30)


def first_sync(node: Node) -> None:
    """Do what the privileged container does before: it alone may set the kernel's parameters."""
    wrapper, node.wrapper = node.wrapper, ()
    assert node.start("--once").wait(60) == 0, node.log.read_text()
    node.wrapper = wrapper


@contextmanager
def serving(node: Node, folder: Path) -> Iterator[None]:
    """Run an agent that has one Ingress to serve and may not be able to; end all that it has started."""
    node.api.put("ingressclasses", objects.ingress_class())
    node.api.put("services", objects.service("echo", "10.96.100.1"))
    node.api.put("endpointslices", objects.endpoint_slice("echo", ["10.244.100.1"]))
    node.api.put("ingresses", objects.ingress("shop", "shop.test"))
    agent = node.start("--ingress", "--no-services", "--nginx-dir", str(folder))
    try:
        yield
    finally:
        agent.kill()
        agent.wait(30)
        supervisor = supervision.supervisor_pid(folder)
        if supervisor:  # 0 would be all of us
            os.kill(supervisor, signal.SIGKILL)
        until(lambda: not any_killed(folder), 30, "nginx is gone")


def any_killed(folder: Path) -> bool:
    """Kill all processes of nginx and say whether there were any: a dying master may have started more workers."""
    left = NGINX.processes(folder)
    for process in left:
        processes.send(process, signal.SIGKILL)
    return bool(left)
