"""The steps of the demo: a blog gets a Service, a rolling update and an Ingress, and is scaled down.

Everything on the node is done by the rulegen command itself, as on any node; its output is shown, cut to fit a screen.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rulegen.demo.cables import join_client, join_pod
from rulegen.demo.examples import folder
from rulegen.demo.hosts import Host, refuse_without_namespaces
from rulegen.demo.peer import Place
from rulegen.demo.screen import answers, bars, condense
from rulegen.demo.secret import make_certificate, secret_manifest
from rulegen.errors import HostError
from rulegen.host.commands.runner import MissingToolError, find
from rulegen.kube.proxyconfig.modes import DEFAULT_MODE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rulegen.demo.hosts import CallTally
    from rulegen.demo.screen import Paint

NODE, NODE_ADDRESS, CLIENT_ADDRESS = "web-1", "192.0.2.10", "192.0.2.77"
CLUSTER_IP, PORT, NODE_PORT, TARGET_PORT = "10.96.32.88", 8080, 32388, 80
PODS = {"my-blog-a": "10.244.1.11", "my-blog-b": "10.244.1.12", "my-blog-c": "10.244.1.13", "my-blog-d": "10.244.1.14"}
QUESTIONS = 300
BLOG, SECRET = "blog.holdno.com", "my-blog-tls"
_CLUSTER = ("my-blog/node.yaml", "my-blog/service.yaml")
_INGRESS = ("my-blog-ingress", "tls.yaml")
_BOTH_WAYS = ("my-blog-ingress-http", "tls.yaml")

_PICTURE = (
    (f"client {CLIENT_ADDRESS} ─────────── {NODE} {NODE_ADDRESS} ", "─", "┬", "my-blog-a"),
    (f"{'':29}ports 80, 443, node port {NODE_PORT}", " ", "├", "my-blog-b"),
    (f"{'':29}cluster IP {CLUSTER_IP}, port {PORT}", " ", "└", "my-blog-c"),
)
_PICTURE_WIDTH = 66


class DemoError(HostError):
    """A step of the demo has failed."""


@dataclass(slots=True)
class Stage:
    """The hosts and the output.

    Attributes:
        pods: Those that run, by name.
        say: Shows one line.
        ends: Ends all hosts.
        mode: How Services are made to work.
        place: A folder for what the demo writes: a lock, so that none of the machine's is taken, and nginx's files.
    """

    node: Host
    client: Host
    pods: dict[str, Host]
    say: Callable[[str], None]
    paint: Paint
    ends: ExitStack
    place: Path
    mode: str

    def start_pod(self, name: str) -> None:
        """Start a pod and join it to the node."""
        self.pods[name] = pod = _started(self.ends, name, TARGET_PORT)
        join_pod(pod, PODS[name], self.node)

    def rulegen(self, command: str, files: tuple[str, ...], *options: str, brief: bool = False) -> None:
        """Run rulegen on the node with some of the example manifests, and show its output.

        Args:
            command: Its first argument.
            files: Of the folder with the examples.
            options: More arguments.
            brief: Show only what it comes to.
        """
        where = folder()
        named = ["my-blog/…", *files[len(_CLUSTER) :]] if files[: len(_CLUSTER)] == _CLUSTER else files
        switch = ["--ingress"] if "--ingress" in options else []
        shown = " ".join(("rulegen", command, *switch, *(f"-f {name}" for name in named)))
        self.say(self.paint.dim(f"  $ {shown}"))
        paths = [self.place / name if (self.place / name).exists() else where / name for name in files]
        given = [argument for path in paths for argument in ("-f", str(path))]
        mode = () if self.mode == DEFAULT_MODE else ("--mode", self.mode)
        argv = ("-m", "rulegen", command, *given, "--config", str(where / "config.yaml"), *mode, "-v", *options)
        done = self.node.run(sys.executable, *argv, environment={"XTABLES_LOCKFILE": str(self.place / "xtables.lock")})
        if done.code != 0:
            raise DemoError(f"`{shown}` failed: {done.complaint}")
        for line in condense(done.stdout, brief=brief):
            self.say(f"  {self.paint.change(line)}")

    def rulegen_ingress(self, command: str, files: tuple[str, ...], *options: str, brief: bool = False) -> None:
        """Run rulegen with Ingresses, for a nginx that ends with the node."""
        self.rulegen(command, files, "--ingress", "--nginx-dir", str(self.place / "nginx"), *options, brief=brief)

    def page(self, scheme: str) -> Place:
        """Return the address of the blog under its name."""
        if scheme == "http":
            return Place(NODE_ADDRESS, 80, BLOG)
        return Place(NODE_ADDRESS, 443, BLOG, str(self.place / "trusted.pem"))

    def look(self, expected: dict[str, tuple[int, str]]) -> None:
        """Request the blog by its name, once over HTTP and once over HTTPS, and show the responses.

        Args:
            expected: By scheme: the status, and where the client is sent.

        Raises:
            DemoError: Something else came back.
        """
        for scheme, (status, location) in expected.items():
            page = self.client.look(self.page(scheme))
            for line in answers(f"{scheme}://{BLOG}/", page, self.paint):
                self.say(line)
            if (page.status, page.location) != (status, location):
                raise DemoError(f"{scheme}://{BLOG}/ answers {page.status or page.text}, not {status} {location}")

    def ask_both_ways(self) -> None:
        """Send requests to the ClusterIP from a Pod and to the node port from outside; show which Pods answered."""
        pod = next(iter(self.pods.values()))
        inside = pod.ask(Place(CLUSTER_IP, PORT), QUESTIONS)
        outside = self.client.ask(Place(NODE_ADDRESS, NODE_PORT), QUESTIONS)
        self.show(
            {
                f"{pod.name} to {CLUSTER_IP}:{PORT}": inside,
                f"client to {NODE_ADDRESS}:{NODE_PORT}": outside,
            }
        )

    def show(self, tallies: dict[str, CallTally]) -> None:
        """Show which Pods answered.

        Raises:
            DemoError: Somebody got no answer, or one of the pods that should have answered never did.
        """
        names = sorted({pod for tally in tallies.values() for pod in tally.answered})
        for line in bars(tallies, names, self.paint):
            self.say(line)
        for way, tally in tallies.items():
            if tally.failed:
                raise DemoError(f"{way}: {tally.failed} of {tally.asked} not answered: {'; '.join(tally.failures)}")
            silent = [pod for pod in self.pods if pod not in tally.answered]
            if silent:
                raise DemoError(f"{way}: {', '.join(silent)} never answered")


def play(say: Callable[[str], None], paint: Paint, mode: str = DEFAULT_MODE) -> None:
    """Run all steps, from the first plan to the last, empty one; then remove everything.

    Args:
        say: Shows one line.
        paint: Colours, where wanted.
        mode: How Services are made to work.

    Raises:
        HostError: This machine cannot do it, or a step failed: which, and why.
    """
    if find("nginx") is None:
        raise MissingToolError("nginx")
    refuse_without_namespaces()
    say(paint.bold("A blog with three Pods, on a node and with a client that exist for this demo only"))
    for left, fill, branch, pod in _PICTURE:
        say(f"  {left:{fill}<{_PICTURE_WIDTH}}{branch}── {pod} {PODS[pod]}:{TARGET_PORT}")
    with _stage(say, paint, mode) as stage:
        _serve(stage)
        _roll_over(stage)
        _name(stage)
        _redirect_no_more(stage)
        _scale_down(stage)
        say("")
        say(paint.bold("7  Apply again: nothing has changed, so nothing is written"))
        stage.rulegen_ingress("plan", (*_CLUSTER, "my-blog-scaled-down", *_BOTH_WAYS))


def _serve(stage: Stage) -> None:
    say, paint = stage.say, stage.paint
    say("")
    say(paint.bold("1  Plan: what the manifests would change on this node"))
    stage.rulegen("plan", ("my-blog",))
    say("")
    say(paint.bold("2  Apply, then send requests"))
    stage.rulegen("apply", ("my-blog",), "--yes", brief=True)
    stage.ask_both_ways()


def _roll_over(stage: Stage) -> None:
    say, paint = stage.say, stage.paint
    say("")
    say(paint.bold("3  Rolling update: my-blog-d replaces my-blog-c while the client sends requests"))
    door = Place(NODE_ADDRESS, NODE_PORT)
    stage.client.start_asking(door)
    stage.start_pod("my-blog-d")
    stage.rulegen("apply", (*_CLUSTER, "my-blog-rolled-over"), "--yes")
    leaving = stage.pods.pop("my-blog-c")
    after = stage.client.ask(door, QUESTIONS)
    leaving.end()
    meanwhile = stage.client.stop_asking()
    stage.show({f"meanwhile: {meanwhile.asked} requests": meanwhile, "afterwards": after})
    say(f"  {meanwhile.asked + after.asked} requests, all answered.")


def _name(stage: Stage) -> None:
    say, paint = stage.say, stage.paint
    certificate, key = make_certificate(BLOG)
    (stage.place / "trusted.pem").write_bytes(certificate)
    (stage.place / "tls.yaml").write_text(secret_manifest(SECRET, certificate, key))
    files = (*_CLUSTER, "my-blog-rolled-over", *_INGRESS)
    say("")
    say(paint.bold(f"4  An Ingress: nginx on the node serves {BLOG} over HTTPS, with a new key"))
    stage.rulegen_ingress("plan", files)
    stage.rulegen_ingress("apply", files, "--yes", brief=True)
    stage.look({"http": (308, f"https://{BLOG}"), "https": (200, "")})


def _redirect_no_more(stage: Stage) -> None:
    say, paint = stage.say, stage.paint
    say("")
    say(paint.bold("5  ssl-redirect off: nginx answers over HTTP too"))
    stage.rulegen_ingress("apply", (*_CLUSTER, "my-blog-rolled-over", *_BOTH_WAYS), "--yes")
    stage.look({"http": (200, ""), "https": (200, "")})


def _scale_down(stage: Stage) -> None:
    say, paint = stage.say, stage.paint
    say("")
    say(paint.bold("6  Scale down: my-blog-a is removed while the client sends requests over HTTPS"))
    stage.client.start_asking(stage.page("https"))
    stage.rulegen_ingress("apply", (*_CLUSTER, "my-blog-scaled-down", *_BOTH_WAYS), "--yes")
    stage.pods.pop("my-blog-a").end()
    after = stage.client.ask(stage.page("https"), QUESTIONS)
    meanwhile = stage.client.stop_asking()
    stage.show({f"meanwhile: {meanwhile.asked} requests": meanwhile, "afterwards": after})
    say(f"  {meanwhile.asked + after.asked} requests, all answered.")


@contextmanager
def _stage(say: Callable[[str], None], paint: Paint, mode: str) -> Iterator[Stage]:
    """Start all hosts and join them; end them, whatever happens."""
    with ExitStack() as ends:
        with _uninterrupted():  # a folder that is there before its end is noted down would stay
            place = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="rulegen-demo-")))
        place.chmod(0o711)  # nginx's workers are another user
        node, client = _started(ends, NODE, keeps=True), _started(ends, "client")
        node.set({"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/disable_ipv6": "1"})
        join_client(client, CLIENT_ADDRESS, node, NODE_ADDRESS)
        stage = Stage(node, client, {}, say, paint, ends, place, mode)
        for name in ("my-blog-a", "my-blog-b", "my-blog-c"):
            stage.start_pod(name)
        yield stage


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Have anyone who interrupts wait."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _started(ends: ExitStack, name: str, port: int = 0, *, keeps: bool = False) -> Host:
    host = Host(name, port, keeps)
    ends.callback(host.end)
    return host
