"""Killed, full, taken away: the node goes on to serve or recovers by itself, and the next apply completes the work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from integration.ingress import objects
from integration.ingress.asking import Request

if TYPE_CHECKING:
    from integration.ingress.lab import IngressLab
    from integration.ingress.node import Node
    from integration.ingress.objects import Document

pytestmark = pytest.mark.xdist_group("ingress-1")

RECOVERY_S = 5.0
CERTIFICATE = objects.described_secret({"name": "cert", "kind": "tls", "cn": "ok.test"})


def world(*hosts: str) -> list[Document]:
    """Return a world with the host that must always answer, and others."""
    return [
        objects.ingress_class(),
        objects.service("echo", "10.96.100.1"),
        objects.endpoint_slice("echo", ["10.244.100.1"]),
        CERTIFICATE,
        objects.ingress("control", "ok.test", secret="cert", annotations={"ssl-redirect": "false"}),
        *(objects.ingress(f"more-{host}", host) for host in hosts),
    ]


@dataclass
class Watch:
    """When a host answered and when not, asked all the time."""

    answered: list[float] = field(default_factory=list)
    failed: list[tuple[float, str]] = field(default_factory=list)

    def outage_s(self) -> float:
        """Return the longest time between two answers."""
        return max((b - a for a, b in zip(self.answered, self.answered[1:], strict=False)), default=0.0)


@contextmanager
def watched(lab: IngressLab) -> Iterator[Watch]:
    """Ask for the host that must always answer, until the end; it must answer then."""
    watch = Watch()
    stop = threading.Event()

    def ask() -> None:
        while not stop.wait(0.02):
            reply = lab.client.ask(Request(host="ok.test"))
            if reply.status == 200:
                watch.answered.append(time.monotonic())
            else:
                watch.failed.append((time.monotonic(), f"{reply.status} {reply.failure}"))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield watch
        time.sleep(0.1)
    finally:
        stop.set()
        thread.join()


@pytest.fixture(scope="module")
def shared_node(ingress_lab: IngressLab) -> Iterator[Node]:
    with ingress_lab.served_apart("crash") as node:
        yield node


@pytest.fixture
def node(ingress_lab: IngressLab, shared_node: Node) -> Node:
    """Give the node, serving, with nothing left of what was done to it before."""
    ingress_lab.occupy(shared_node).apply(world())
    return shared_node


def await_(what: Callable[[], object], within_s: float = 2 * RECOVERY_S) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(0.05)  # to look starts a process


def check_completes(lab: IngressLab, node: Node, host: str) -> str:
    """Apply a change; it must be served and be the last; return what apply said."""
    done = node.apply(world(host))
    assert lab.client.ask(Request(host=host)).status == 200
    assert node.is_converged()
    return done.stdout + done.stderr


def journal(node: Node) -> str:
    """Return what the supervisor wrote."""
    return (node.outside() / "logs" / "keeper.log").read_text()


def test_a_killed_master_is_started_again(ingress_lab: IngressLab, node: Node) -> None:
    (master,) = node.masters()
    with watched(ingress_lab) as watch:
        node.kill(master)
        await_(lambda: node.masters() and node.masters() != [master])
        await_(lambda: ingress_lab.client.ask(Request(host="ok.test")).status == 200)
    assert watch.outage_s() < RECOVERY_S, watch.failed[:5]
    assert f"nginx {master} ended unexpectedly" in journal(node)
    assert node.is_converged()
    check_completes(ingress_lab, node, "after-master.test")
    print(f"outage of a killed master: {watch.outage_s():.2f} s, {len(watch.failed)} requests failed")


def test_a_killed_worker_is_replaced(ingress_lab: IngressLab, node: Node) -> None:
    workers = node.workers()
    with watched(ingress_lab) as watch:
        for worker in workers:
            node.kill(worker)
            time.sleep(0.3)
        await_(lambda: len(node.workers()) == len(workers) and not set(node.workers()) & set(workers))
    assert watch.outage_s() < 1, watch.failed[:5]
    check_completes(ingress_lab, node, "after-worker.test")


def supervisor(node: Node) -> int:
    """Return the process id of the supervisor."""
    results = [pid for pid in node.processes("host.nginx.supervisor") if pid not in node.processes("ps -ww")]
    assert len(results) == 1, results
    return results[0]


def test_nginx_outlives_its_supervisor_until_the_next_apply(ingress_lab: IngressLab, node: Node) -> None:
    killed, masters = supervisor(node), node.masters()
    with watched(ingress_lab) as watch:
        node.kill(killed)
        time.sleep(0.3)
        assert node.masters() == masters
        check_completes(ingress_lab, node, "after-supervisor.test")
        assert node.masters() == masters
    assert watch.failed == []
    assert supervisor(node) != killed

    node.kill(masters[0])
    await_(
        lambda: ingress_lab.client.ask(Request(host="ok.test")).status == 200 and node.masters() not in ([], masters)
    )


def test_all_killed_at_once_are_back_with_the_next_apply(ingress_lab: IngressLab, node: Node) -> None:
    for pid in (supervisor(node), *node.masters(), *node.workers()):
        node.kill(pid)
    await_(lambda: ingress_lab.client.ask(Request(host="ok.test")).status == 0)
    assert not node.is_converged()
    check_completes(ingress_lab, node, "after-all.test")


# When it is killed, counted from something that can be seen, and whether its children are killed with it.
MOMENTS = [
    ("start", 0.3, True),
    ("partial", 0.0, False),
    ("partial", 0.02, True),
    ("release", 0.0, True),
    ("release", 0.05, False),
    ("switch", 0.0, False),
    ("switch", 0.01, True),
    ("switch", 0.05, False),
    ("switch", 0.2, True),
]


@pytest.mark.parametrize(("event", "later_s", "group"), MOMENTS)
def test_a_killed_apply_costs_nothing_and_the_next_completes_it(
    ingress_lab: IngressLab, node: Node, event: str, later_s: float, *, group: bool
) -> None:
    releases, current = node.outside() / "releases", node.outside() / "current"
    before, live = set(releases.iterdir()), current.readlink()
    host = f"{event}-{int(later_s * 1000)}-{group}.test".lower()
    happened: dict[str, Callable[[], object]] = {
        "start": lambda: True,
        "partial": lambda: set(releases.iterdir()) - before,
        "release": lambda: any(not path.name.endswith("partial") for path in set(releases.iterdir()) - before),
        "switch": lambda: current.readlink() != live,
    }
    node.write(world(host))
    with watched(ingress_lab) as watch:
        running = node.start("apply")
        deadline = time.monotonic() + 20
        while not happened[event]() and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(later_s)
        running.kill(group=group)
        code = running.wait().code
        time.sleep(0.3)
        said = check_completes(ingress_lab, node, host)
    assert code in {0, -9}
    assert watch.failed == []
    assert len(list(releases.iterdir())) <= 4, said


def mount(node: Node, *how: str) -> None:
    """Mount something over the folder that the folder of nginx is made in; it ends with the node."""
    node.host.run(["mount", *how, str(node.folder.parent)]).check()


def test_a_full_disk_stops_a_change_not_the_service(ingress_lab: IngressLab) -> None:
    with ingress_lab.served_apart("full") as node:
        mount(node, "-t", "tmpfs", "-o", "size=3m,mode=755", "small")
        node.apply(world())
        with watched(ingress_lab) as watch:
            node.host.run(["dd", "if=/dev/zero", f"of={node.folder.parent}/filler", "bs=4k"])
            node.write(world("full.test"))
            done = node.run("apply")
            assert done.code not in {0, None}
            assert "space" in done.stderr
            assert "Traceback" not in done.stderr
            (node.outside(node.folder.parent) / "filler").unlink()
            check_completes(ingress_lab, node, "full.test")
        assert watch.failed == []


def test_a_disk_full_before_the_first_start_leaves_nothing(ingress_lab: IngressLab) -> None:
    with ingress_lab.served_apart("full-first") as node:
        mount(node, "-t", "tmpfs", "-o", "size=8k,mode=755", "small")
        node.write(world())
        done = node.run("apply")
        assert done.code not in {0, None}
        assert "space" in done.stderr
        assert "Traceback" not in done.stderr
        mount(node, "-o", "remount,size=3m")
        check_completes(ingress_lab, node, "first.test")


def test_an_unwritable_folder_stops_a_change_not_the_service(ingress_lab: IngressLab) -> None:
    with ingress_lab.served_apart("read-only") as node:
        mount(node, "-t", "tmpfs", "-o", "size=3m,mode=755", "small")
        node.apply(world())
        with watched(ingress_lab) as watch:
            # Logs that nginx has open for writing keep a file system from being made read-only as a whole.
            mount(node, "--bind", str(node.folder.parent))
            mount(node, "-o", "remount,bind,ro")
            node.write(world("read-only.test"))
            done = node.run("apply")
            assert done.code not in {0, None}
            assert str(node.folder) in done.stderr
            assert "Traceback" not in done.stderr
            node.host.run(["umount", str(node.folder.parent)]).check()
            check_completes(ingress_lab, node, "read-only.test")
        assert watch.failed == []


def test_a_folder_of_somebody_else_is_refused(ingress_lab: IngressLab, node: Node) -> None:
    with watched(ingress_lab) as watch:
        node.host.run(["chown", "nobody", str(node.folder)]).check()
        node.write(world("foreign.test"))
        done = node.run("apply")
        assert done.code not in {0, None}
        assert str(node.folder) in done.stderr
        node.host.run(["chown", "root", str(node.folder)]).check()
        check_completes(ingress_lab, node, "foreign.test")
    assert watch.failed == []


@pytest.mark.parametrize(
    "harm",
    [
        "rm -rf releases/*",
        "rm current",
        "ln -sfn releases/00000000000000000000000000000000 current",
        "rm -f current/hosts/*",
        "echo 'return 418;' >>current/nginx.conf",
        "rm -f run/status.sock run/nginx.pid",
    ],
)
def test_a_folder_that_was_tampered_with_is_made_whole(ingress_lab: IngressLab, node: Node, harm: str) -> None:
    with watched(ingress_lab) as watch:
        node.host.run(["sh", "-c", f"cd {node.folder} && {harm}"]).check()
        check_completes(ingress_lab, node, "mended.test")
        node.apply(world())
    assert watch.outage_s() < RECOVERY_S, watch.failed[:5]
    assert node.is_converged()


def test_a_killed_master_is_back_with_the_next_apply(ingress_lab: IngressLab) -> None:
    """The live release does not load any more: nobody can start it, but the next apply mends it."""
    with ingress_lab.served_apart("spoilt") as node:
        node.apply(world())
        node.host.run(["sh", "-c", f"echo 'nonsense;' >>{node.folder}/current/nginx.conf"]).check()
        for pid in node.masters():
            node.kill(pid)
        time.sleep(0.5)
        check_completes(ingress_lab, node, "mended-too.test")


def test_a_port_in_use_is_reported_with_its_owner(ingress_lab: IngressLab) -> None:
    with ingress_lab.served_apart("port") as node:
        code = "import socket, time; s = socket.create_server(('0.0.0.0', 80)); time.sleep(1000)"
        holder = node.host.popen(["python3", "-c", code])
        time.sleep(0.5)
        node.write(world())
        done = node.run("apply")
        assert done.code not in {0, None}
        assert "80" in done.stderr
        assert "python3" in done.stderr
        assert "Traceback" not in done.stderr
        holder.kill()
        holder.wait()
        check_completes(ingress_lab, node, "port.test")
