"""`rulegen run --ingress`: others spoil the files and the processes of nginx, which is seen within a period."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from integration import forks, manifests
from integration.agent import Node, network_namespace, until
from integration.ingress import objects
from rulegen.host.nginx.program import NGINX
from rulegen.host.proxy import process_list
from rulegen.host.proxy.processes import supervision
from tests.servers.fakeapi import FakeApi

pytestmark = [
    pytest.mark.xdist_group("agent"),
    pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed"),
]

HOST = "shop.test"
TOLD = "changed by another program"


class Site:
    """A node that serves one host by nginx, from a folder.

    Attributes:
        node: The node.
        folder: Where its nginx lives.
        options: What the agent, and a plan, are told of it.
    """

    def __init__(self, node: Node, folder: Path) -> None:
        self.node, self.folder = node, folder
        self.options = ("--ingress", "--no-services", "--nginx-dir", str(folder))

    def files(self) -> dict[str, str]:
        """Return what is live."""
        current = self.folder / "current"
        return {str(path.relative_to(current)): path.read_text() for path in sorted(current.rglob("*.conf"))}

    def file(self) -> Path:
        """Return the live file of the host."""
        return next(path for path in (self.folder / "current" / "hosts").iterdir() if HOST in path.read_text())

    def answers(self) -> bool:
        """Whether nginx answers for the host; its backend is nowhere."""
        request = urllib.request.Request("http://127.0.0.1/", headers={"Host": HOST})
        try:
            urllib.request.urlopen(request, timeout=5)
        except urllib.error.HTTPError as error:
            with error:
                return error.code in {502, 504}
        except (OSError, ConnectionError):
            return False
        return False

    def plan(self) -> int:
        """Return the exit code of a plan: 0 where nothing is to be done."""
        argv = self.node.argv("plan", "--detailed-exitcode", *self.options)
        return forks.run(argv).returncode

    def kill(self) -> None:
        """Kill nginx and who keeps it."""
        supervisor = supervision.supervisor_pid(self.folder)
        if supervisor:  # 0 would be all of us
            os.kill(supervisor, signal.SIGKILL)
        for process in NGINX.processes(self.folder):
            process_list.send(process, signal.SIGKILL)
        until(lambda: not NGINX.processes(self.folder), 10, "nginx is gone")


@contextmanager
def served() -> Iterator[Site]:
    """Give a node with its API server; what nginx there is ends with it."""
    with network_namespace(), FakeApi() as api, tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)  # nginx's workers are another user
        api.put("nodes", *manifests.nodes())
        api.put("ingressclasses", objects.ingress_class())
        api.put("services", objects.service("echo", "10.96.100.1"))
        api.put("endpointslices", objects.endpoint_slice("echo", ["10.244.100.1"]))
        api.put("ingresses", objects.ingress("shop", HOST))
        node = Node(root, api)
        node.configure(iptables={"minSyncPeriod": "0s", "syncPeriod": "1s"})
        site = Site(node, root / "nginx")
        try:
            yield site
        finally:
            if site.folder.exists():
                site.kill()


DAMAGE: dict[str, Callable[[Site], object]] = {
    "change a file": lambda site: site.file().write_text(site.file().read_text().replace("location", "# location", 1)),
    "remove a file": lambda site: site.file().unlink(),
    "add a file": lambda site: site.file().with_name("0" * 16 + ".conf").write_text("# what others wrote\n"),
    "delete the release": lambda site: shutil.rmtree((site.folder / "current").resolve()),
    "remove the link": lambda site: (site.folder / "current").unlink(),
}


@pytest.fixture(scope="class")
def site() -> Iterator[Site]:
    with served() as site, site.node.running(*site.options):
        until(site.answers, 20, "nginx answers")
        yield site


class TestDamage:
    @pytest.mark.parametrize("kind", DAMAGE)
    def test_foreign_changes_of_files_are_repaired_and_logged(self, site: Site, kind: str) -> None:
        until(lambda: site.plan() == 0, 20, "nothing to do")
        before, reported, counted = site.files(), len(site.node.lines(TOLD)), site.node.drift()
        DAMAGE[kind](site)
        until(lambda: len(site.node.lines(TOLD)) > reported, 20, f"{kind}: told")
        until(lambda: site.plan() == 0, 20, f"{kind}: mended")
        assert site.files() == before
        assert site.answers()
        assert site.node.lines(TOLD)[-1].endswith("mended=True")
        assert site.node.drift() > counted

    def test_killed_with_its_supervisor_it_is_started_again(self, site: Site) -> None:
        until(lambda: site.plan() == 0, 20, "nothing to do")
        count, counted = len(site.node.lines(TOLD)), site.node.drift()
        site.kill()
        until(lambda: bool(site.node.lines("nginx ended unexpectedly")), 20, "told")
        assert "with its supervisor" in site.node.lines("nginx ended unexpectedly")[0]
        until(lambda: site.plan() == 0 and site.answers(), 20, "started again")
        assert (len(site.node.lines(TOLD)), site.node.drift()) == (count, counted)

    def test_a_change_of_an_ingress_is_no_damage(self, site: Site) -> None:
        until(lambda: site.plan() == 0, 20, "nothing to do")
        count = len(site.node.lines(TOLD))
        site.node.api.put("ingresses", objects.ingress("more", "more.test"))
        until(lambda: any("more.test" in text for text in site.files().values()), 20, "the new host")
        until(lambda: site.plan() == 0, 20, "nothing to do")
        site.node.api.delete("ingresses", "default", "more")
        until(lambda: not any("more.test" in text for text in site.files().values()), 20, "gone")
        assert len(site.node.lines(TOLD)) == count


def test_asked_only_to_report_it_tells_and_leaves_all() -> None:
    with served() as site:
        assert site.node.start("--once", *site.options).wait(30) == 0, site.node.log.read_text()
        until(site.answers, 20, "nginx answers")
        with site.node.running("--drift", "report", *site.options):
            # What a first look finds may be older than the agent, and is nobody's damage for certain.
            until(lambda: "ingressesNotServed" not in site.node.health()[1], 20, "a first look")
            for kind in ("add a file", "change a file", "remove a file", "remove the link"):
                count = len(site.node.lines("mended=False"))
                DAMAGE[kind](site)
                broken = site.files()
                until(lambda count=count: len(site.node.lines("mended=False")) > count, 20, f"{kind}: told")
                assert site.files() == broken
        assert not site.node.lines("nginx reloaded")


def test_a_full_disk_is_reported_and_changes_wait_for_room() -> None:
    with served() as site:
        mount = f'mkdir {site.folder} && mount -t tmpfs -o size=1m,mode=755 none {site.folder} && exec "$@"'
        site.node.wrapper = ("unshare", "--mount", "sh", "-c", mount, "sh")
        with ExitStack() as stack:
            agent = stack.enter_context(site.node.running(*site.options))
            until(site.answers, 20, "nginx answers")
            there = os.open(f"/proc/{agent.pid}/root{site.folder}", os.O_RDONLY)
            stack.callback(os.close, there)
            seen = Site(site.node, Path(f"/proc/self/fd/{there}"))
            stack.callback(seen.kill)
            stack.callback(agent.wait, 20)
            stack.callback(agent.terminate)
            filler = seen.folder / "filler"
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(b"0" * 4096)
            site.node.api.put("ingresses", objects.ingress("more", "more.test"))
            until(lambda: site.node.metric("rulegen_nginx_failures_total") > 1, 30, "tried again")
            assert "No space left on device" in site.node.lines("not served")[0]
            assert site.answers()
            filler.unlink()
            until(lambda: any("more.test" in text for text in seen.files().values()), 30, "the new host")
            assert site.answers()
