"""Pages show and change nothing: neither asked alone nor beside changes of the cluster and of the host."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
from msgspec import structs

from rulegen.agent.inbox import Wake
from rulegen.agent.pages import views
from rulegen.errors import HostError
from rulegen.host.commands.runner import Command, Completed
from rulegen.host.netfilter.variant import Variant, VariantChoice
from rulegen.host.nginx.engine import NginxEngine
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.events import Gone
from rulegen.kube.objects.names import ObjectName
from tests.agent.services.test_left_out import StandIn
from tests.agent.stage import FACTS, Stage, changed, endpoints, node, service
from tests.kernels.refusing import Tools

LEAVES = (str, bytes, int, float, bool, type(None))
UDP = {"ports": (k.ServicePort(name="http", port=53, protocol="UDP"),)}


def image(value: object, seen: tuple[int, ...] = ()) -> object:
    """Return all that an object holds, as values that can be compared; what is not ours is its type."""
    if isinstance(value, LEAVES):
        return value
    if id(value) in seen or isinstance(value, Tools):
        return "..."
    inner = (*seen, id(value))
    if isinstance(value, dict):
        return sorted((repr(key), image(entry, inner)) for key, entry in value.items())
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    if isinstance(value, list | tuple):
        return [image(entry, inner) for entry in value]
    if not type(value).__module__.startswith(("rulegen.", "tests.")):
        return type(value).__name__
    slots = {name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())} - {"__weakref__"}
    names = sorted(slots | {*getattr(value, "__dict__", ())})
    return type(value).__name__, [(name, image(getattr(value, name, None), inner)) for name in names]


def udp_endpoints(number: int) -> k.EndpointSlice:
    ports = (k.SlicePort(name="http", port=8080, protocol="UDP"),)
    return structs.replace(endpoints("dns", number), ports=ports)


class Conntrack(Tools):
    """Lists connections until it is broken."""

    is_broken = False

    def __call__(self, command: Command) -> Completed:
        if command.argv[0] == "conntrack":
            return Completed(1, "", "conntrack: no rights") if self.is_broken else Completed(0, "")
        return super().__call__(command)


class OnlyForTheAgent(Conntrack):
    """Lists connections for the agent's own thread alone."""

    def __call__(self, command: Command) -> Completed:
        self.is_broken = threading.current_thread().name == "pages"
        return super().__call__(command)


class Node(Stage):
    """A node with Services of both protocols, and a folder of nginx whose release is damaged."""

    def __init__(self, tools: Tools, folder) -> None:
        super().__init__(writer=StandIn(tools, VariantChoice(Variant.NFT, "for a test"), FACTS))
        self.state.wall, self.state.started = self.clock, self.clock()
        releases = SimpleNamespace(current=self.damaged)
        deployed = SimpleNamespace(folder=folder, releases=releases, status=lambda: SimpleNamespace(digest=""))
        self.live = NginxEngine(deployed, None, templates=None)
        model = SimpleNamespace(reasons=(), settings=None)
        decided = SimpleNamespace(model=model, configuration=SimpleNamespace(files={}, secrets={}, digest=""), names={})
        self.site = SimpleNamespace(live=self.live, site=decided)
        self.at(0, changed(node()), changed(service("api", 1)), changed(service("dns", 2, **UDP)))
        self.at(0, changed(endpoints("api", 1)), changed(udp_endpoints(2)))

    def damaged(self) -> None:
        raise HostError("the release cannot be read")

    def serve_all(self) -> None:
        for page in views(self.loop, self.site).values():
            page()

    @property
    def image(self) -> object:
        return image([self.loop, self.state, self.live.notes])


@pytest.fixture(autouse=True)
def site_plan(monkeypatch):
    """Plan nothing for nginx: what counts here is what is noted on the way."""
    monkeypatch.setattr(NginxEngine, "plan", lambda *_: SimpleNamespace(items=(), is_empty=True))
    monkeypatch.setattr("rulegen.agent.pages.with_site", lambda plan, _: plan)


@pytest.mark.not_quick
def test_pages_change_nothing_that_is_known(tmp_path):
    tools = Conntrack(Variant.NFT)
    stage = Node(tools, tmp_path)
    stage.run(20)
    before = stage.image
    tools.is_broken = True
    for _ in range(3):
        stage.serve_all()
    assert stage.image == before


@pytest.mark.not_quick
def test_pages_beside_changes_leave_the_agent_as_without_them(tmp_path):
    """Pages beside changes leave the agent as it is without them."""

    def run(*, asked: bool) -> tuple[object, list[str]]:
        stage = Node(OnlyForTheAgent(Variant.NFT), tmp_path)
        ended, served = threading.Event(), threading.Semaphore(0)

        def ask() -> None:
            while not ended.is_set():
                stage.serve_all()
                served.release()

        def wait() -> None:
            """Let a whole round of pages pass here: it began before this change, or after it."""
            for _ in range(2 if asked else 0):
                assert served.acquire(timeout=60)

        for number in range(6):
            stage.at(2 * number + 1, changed(udp_endpoints(number + 3)), wait, Wake("check"), wait)
            stage.at(2 * number + 2, changed(service(f"more{number}", number + 5)), wait)
        stage.at(15, Gone(k.Service, ObjectName("demo", "api")), wait, Wake("host"), wait)
        pages = threading.Thread(target=ask, name="pages")
        if asked:
            pages.start()
        try:
            stage.run(60)
        finally:
            ended.set()
            if asked:
                pages.join()
        return stage.image, [line[25:] for line in stage.log]

    image_with, log_with = run(asked=True)
    image_without, log_without = run(asked=False)
    assert log_with == log_without
    assert image_with == image_without
