"""What is needed to try features one by one: worlds that scenarios share, and a stage that serves and judges them.

Scenarios with the same settings for all hosts are served together, each with hosts of its own: one release, many tests.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from integration.ingress import objects
from integration.ingress.cast import BLACK_HOLE, cast
from integration.ingress.clients import Ask, Client, Told
from integration.ingress.expectations import Facts, matches, wrongs
from integration.ingress.identities import pair
from integration.ingress.lab import PROGRAMS, PYTHON, IngressLab
from integration.ingress.node import Node
from integration.ingress.objects import Document
from integration.lab.hosts import LabError

NODE_V6, CLIENT_V6 = "fd00:50::10", "fd00:50::100"
SECOND_CLIENT = "192.168.50.101"


@dataclass(frozen=True, kw_only=True)
class World:
    """What scenarios have in common: settings for all hosts, flags, and objects beside the cast."""

    name: str
    config: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, str | bool] = field(default_factory=dict)
    documents: tuple[Document, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Objects of its own, what is asked, and what must be answered.

    Attributes:
        then: Looks closer, and tells what is wrong.
        not_yet: What is answered instead of what is right, where that is known and not mended.
    """

    name: str
    world: World
    documents: tuple[Document, ...]
    asks: tuple[Ask, ...] = ()
    then: Callable[[Stage], object] | None = None
    not_yet: str = ""


@dataclass
class Stage:
    """A lab that serves one world after the other."""

    lab: IngressLab
    client: Client
    output: str = ""
    _serving: tuple[str, str] = ("", "")
    facts: Facts | None = None
    own_node: Node | None = None

    def serve(self, world: World, scenarios: Iterable[Scenario]) -> None:
        """Make the node serve a world with all of its scenarios, unless it does."""
        node = self.lab.occupy(self.own_node or self.lab.node)
        current = node.outside() / "current"
        if self._serving == (world.name, str(current.readlink()) if current.is_symlink() else ""):
            return
        documents = [
            *cast(),
            *world.documents,
            *(document for scenario in scenarios for document in scenario.documents),
        ]
        namespace, name = objects.CONTROLLER_CONFIG.split("/")
        documents.append(objects.config_map(name, world.config, namespace))
        done = node.apply(documents, world.flags)
        self.output = done.stdout + done.stderr
        self._serving = (world.name, str(current.readlink()))
        self.facts = self.lab.facts(documents)

    def judge(self, ask: Ask) -> list[str]:
        """Ask, and return what is not as wanted.

        Beside the keys of `expectations`: `fails` (no answer at all), `json` (of a specialist), `judge_sees` (what the
        auth server saw), `body_has`, `size`, `seconds` (least and most), `tls` (version, cipher, protocol; parts of
        them), `certificate` (a Pair), `statuses` (all that there are).
        """
        want = dict(ask.want)
        replies = self.client.ask_all(ask)
        first = replies[0]
        checks: dict[str, Callable[[Any], object]] = {
            "fails": lambda _: first.status != 0,
            "json": lambda reported: [
                key for key, value in reported.items() if not matches(value, str(first.json.get(key)))
            ],
            "judge_sees": lambda reported: _not_seen(reported, first),
            "body_has": lambda reported: reported.encode() not in first.body,
            "size": lambda reported: len(first.body) != reported,
            "seconds": lambda reported: not reported[0] <= first.elapsed_s <= reported[1],
            "tls": lambda reported: not all(part in got for part, got in zip(reported, first.tls, strict=True)),
            "certificate": lambda reported: first.certificate != reported.der,
            "statuses": lambda reported: {reply.status for reply in replies} != set(reported),
            "cookie": lambda reported: [
                reply for reply in replies if not matches(reported, "|".join(reply.all("Set-Cookie")))
            ],
        }
        assert self.facts is not None
        wrong = [f"{key}: expected {want[key]!r}" for key, check in checks.items() if key in want and check(want[key])]
        wrong += wrongs({key: value for key, value in want.items() if key not in checks}, list(replies), self.facts)
        return [f"{fault}\n      {_shown(ask, replies)}" for fault in wrong]

    def log(self, last: str) -> list[str]:
        """Return the lines of the access log up to one with a text, which may come a little after the answer."""
        path = self.lab.node.outside() / "logs" / "access.log"
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            lines = path.read_text().splitlines() if path.exists() else []
            if any(last in line for line in lines):
                return lines
            time.sleep(0.02)
        raise LabError(f"no line of the access log has {last}")

    def errors(self) -> list[str]:
        """Return what nginx has complained of until now."""
        path = self.lab.node.outside() / "logs" / "error.log"
        return path.read_text(errors="replace").splitlines() if path.exists() else []


def _not_seen(reported: Mapping[str, Any], reply: Told) -> list[str]:
    """Return what the auth server did not see as told; it tells by a header that the backend gets."""
    shown = reply.seen_headers("X-Seen")
    if len(shown) != 1:
        return [f"X-Seen: {shown}"]
    seen = json.loads(shown[0])
    headers = {key.lower(): value for key, value in seen["headers"]}
    wrong = [
        f"{key} {seen[key]}" for key in ("method", "path") if key in reported and not matches(reported[key], seen[key])
    ]
    for key, value in reported.get("headers", {}).items():
        if not matches(value, headers.get(key.lower(), "(none)")):
            wrong.append(f"{key}: {headers.get(key.lower())}")
    return wrong + [key for key in reported.get("absent", ()) if key.lower() in headers]


def _shown(ask: Ask, replies: list[Told]) -> str:
    first = replies[0]
    said = f"{ask.method} {'https' if ask.tls else 'http'}://{ask.host}{ask.path} {dict(ask.headers)}"
    codes = [reply.status for reply in replies[:20]]
    got = f"{first.failure} {first.elapsed_s:.2f}s {list(first.headers)} {first.tls} {first.body[:1500]!r}"
    return f"{said} -> {codes} {got}"


def build(lab: IngressLab) -> Stage:
    """Prepare a lab: specialists among its pods, a black hole, a second client, and IPv6 between client and node."""
    authority, server = lab.folder / "specialists-ca.pem", lab.folder / "specialists.pem"
    authority.write_bytes(pair("ca").pem)
    server.write_bytes(pair("backend.internal", pair("ca"), names=("backend.internal",)).whole)
    for name, command in (
        ("pods", f"route add blackhole {BLACK_HOLE}/32 table local"),
        ("client", f"addr add {SECOND_CLIENT}/24 dev uplink"),
        ("client", f"addr add {CLIENT_V6}/64 dev uplink nodad"),
        ("node", f"addr add {NODE_V6}/64 dev eth0 nodad"),
    ):
        lab.hosts[name].run(["ip", *command.split()]).check()
    lab.hosts["pods"].popen([*PYTHON, str(PROGRAMS / "specialists.py"), str(authority), str(server)])
    client = Client(lab.hosts["client"].wire.pid, lab.folder)
    deadline = time.monotonic() + 10
    while True:
        try:
            client.connect(9107, "10.244.0.1").close()
        except ConnectionError:
            if time.monotonic() > deadline:
                raise LabError(f"the specialists do not listen ({sys.executable})") from None
            time.sleep(0.05)
        else:
            return Stage(lab, client)
