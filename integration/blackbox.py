"""rulegen as a node runs it: a program with arguments, an exit code, and effects. Nothing of its inside is used."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from integration import manifests
from integration.lab import topology

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from integration.lab.hosts import Completed, Running
    from integration.lab.lab import Lab
    from integration.manifests import App

Variant = Literal["nft", "legacy", "ipvs", "nftables", "kube-proxy", "userspace"]
"""Where Services are made: rules of one kind of iptables; IPVS, with rules of iptables-legacy beside it; nftables, in
layout flat or in that of kube-proxy; or a proxy, with rules of iptables-nft."""

Verb = Literal["plan", "apply", "cleanup"]


@dataclass(frozen=True, slots=True)
class VariantRow:
    """How a variant is chosen.

    Attributes:
        iptables: Its kind of iptables.
        options: What `plan` and `apply` are given.
        marks: The section of the configuration with the options about masquerading.
        fields: Fields of the configuration with which node ports answer where they do in iptables mode.
        tables: The name of its table of nftables; empty if it has rules of iptables.
    """

    iptables: Literal["nft", "legacy"]
    options: tuple[str, ...] = ()
    marks: str = "iptables"
    fields: Mapping[str, object] = field(default_factory=dict)
    table: str = ""


_EVERYWHERE = {"nodePortAddresses": ["0.0.0.0/0", "::/0"]}
_IN_NFTABLES = ("--mode", "nftables", "--nftables-layout")
VARIANT_ROWS: Mapping[Variant, VariantRow] = {
    "nft": VariantRow("nft"),
    "legacy": VariantRow("legacy"),
    "ipvs": VariantRow("legacy", ("--mode", "ipvs")),
    "nftables": VariantRow("nft", (*_IN_NFTABLES, "flat"), "nftables", _EVERYWHERE, "rulegen"),
    "kube-proxy": VariantRow("nft", (*_IN_NFTABLES, "kube-proxy"), "nftables", _EVERYWHERE, "kube-proxy"),
    "userspace": VariantRow("nft", ("--mode", "userspace")),
}

NO_CHANGES, CHANGES = 0, 2
"""Exit codes of `plan --detailed-exitcode`."""


class Rulegen:
    """Runs rulegen on the lab's node, for one variant.

    Attributes:
        options: What `plan` and `apply` are given more.
        served: What the node serves and with which options, as far as this knows: a world need not be applied twice.
    """

    def __init__(self, lab: Lab, variant: Variant) -> None:
        self.lab = lab
        self.variant = variant
        self.options: tuple[str, ...] = ()
        self.served: tuple[str, str, tuple[str, ...]] | None = None
        self._config = lab.folder / "config.json"
        self._objects = lab.folder / "objects.json"

    def __repr__(self) -> str:
        return f"<rulegen for {self.variant}>"

    @property
    def _row(self) -> VariantRow:
        return VARIANT_ROWS[self.variant]

    def argv(self, verb: Verb, *more: str) -> list[str]:
        """Return the command line of a verb on the files last written: the one place that knows its form."""
        given = list(more)
        if verb != "cleanup":
            given += ["-f", str(self._objects), "--config", str(self._config), "--node", topology.NODE, *self.options]
        if verb != "plan":
            given.append("-y")
        return self._command(verb, *given)

    def _run(self, argv: list[str]) -> Completed:
        """Run a command to its end, in a fork, where all is imported already."""
        return self.lab.node.fork(argv).wait(120)

    def _command(self, verb: Verb, *given: str) -> list[str]:
        options = self._row.options if verb != "cleanup" else ()
        program = [sys.executable, "-W", "error", "-m", "rulegen", verb]
        return [*program, "--variant", self._row.iptables, *options, *given, "-v"]

    def configuration(self, **fields: object) -> str:
        """Return a KubeProxyConfiguration for this variant; fields of section `iptables` are in that of its mode."""
        renamed = {self._row.marks if name == "iptables" else name: value for name, value in fields.items()}
        return manifests.configuration(**{**self._row.fields, **renamed})

    def write(self, world: str, config: str | None = None) -> None:
        """Write objects and configuration to where the next command reads them."""
        self._objects.write_text(world)
        self._config.write_text(config or self.configuration())

    def start(self, verb: Verb) -> Running:
        """Start a command on the files last written, in a fork as all others: it is at work at once."""
        self.served = None
        return self.lab.node.fork(self.argv(verb))

    def attempt(self, verb: Verb, *more: str) -> Completed:
        """Run a command on the files last written; its exit code is the caller's to judge."""
        self.served = None
        return self._run(self.argv(verb, *more))

    def apply(self, world: str, config: str | None = None) -> Completed:
        """Make the node serve a world; it must succeed."""
        self.served = None
        self.write(world, config)
        return self._run(self.argv("apply")).check()

    def plan(self) -> Completed:
        """Plan on the files last written; the exit code tells whether there are changes."""
        return self._planned(self.argv("plan", "--detailed-exitcode"))

    def plan_of(self, objects: Path, config: Path, host: Path) -> Completed:
        """Plan on files of somebody else's against this node's kernel."""
        given = ("-f", str(objects), "--config", str(config), "--host", str(host))
        return self._planned(self._command("plan", "--detailed-exitcode", *given))

    def _planned(self, argv: list[str]) -> Completed:
        done = self._run(argv)
        assert done.code in {NO_CHANGES, CHANGES}, f"plan: exit {done.code}\n{done.stdout}{done.stderr}"
        return done

    def cleanup(self) -> Completed:
        """Take all away."""
        self.served = None
        return self._run(self.argv("cleanup")).check()

    def serve(self, apps: Iterable[App], config: str | None = None, *options: str) -> None:
        """Make the node serve Apps, unless it does; forget all connections made so far."""
        wanted = (manifests.world(apps), config or self.configuration(), options)
        if self.served != wanted:
            self.options = options
            self.apply(*wanted[:2])
            self.served = wanted
        self.lab.node.run(["conntrack", "-F"]).check()

    def check_converged(self) -> None:
        """Fail unless a plan on the files last written is empty."""
        planned = self.plan()
        assert planned.code == NO_CHANGES, planned.stdout
