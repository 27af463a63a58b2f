"""From a folder with the dumps of several nodes to their plans. The name of a subfolder is the name of its node."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from rulegen import __version__
from rulegen.cli.terminal.console import Progress, has_colour, print_json, print_lines, print_long
from rulegen.cli.wiring.made import with_made
from rulegen.cli.wiring.planning import plan_saved
from rulegen.errors import ConfigError, InputError, RulegenError, Warnings
from rulegen.kube.node_names import read_node_name, unknown_node
from rulegen.plan.fleet import table
from rulegen.plan.fleet.document import fleet_document
from rulegen.plan.fleet.nodes import Fleet
from rulegen.plan.fleet.page import page
from rulegen.plan.fleet.sarif import sarif_log
from rulegen.plan.show import Report
from rulegen.text import counted_noun, listed, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rulegen.cli.wiring.inputs import Inputs
    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.plan.plan import Plan

HOST_FILE: Final = "host.yaml"
"""Name of the file with facts of the host, beside its dumps."""
MAX_NODES: Final = 5_000
"""The most folders; Kubernetes supports as many nodes."""


class NodesFailedError(RulegenError):
    """Some nodes could not be compared; all others were."""


def plan_fleet(inputs: Inputs, path: str) -> Fleet:
    """Return the plans of the nodes whose dumps are in the subfolders of a folder.

    A node that cannot be read is a row with its error. It never counts as a node without changes.

    Args:
        inputs: The input of the command; with `every_node`, so that the objects have all Nodes.
        path: The folder.

    Raises:
        InputError: The folder cannot be read, or has no subfolder.
        RulegenError: The options or the objects cannot be read.
    """
    folders, ignored = _folders(path)
    inputs.tables.backend(inputs.options.mode)  # an unknown mode is reported before anything is read
    world = inputs.world
    if ignored:
        inputs.warn(f"{counted_noun(len(ignored), 'file')} beside the folders of nodes ignored: {listed(ignored)}")
    without_facts = [folder.name for folder in folders if not inputs.chosen.host and not _has_facts(folder)]
    if without_facts:
        inputs.warn(
            f"facts of this host are used for {counted_noun(len(without_facts), 'node')} without {HOST_FILE}:"
            f" {listed(without_facts)}"
        )
    fleet = Fleet(_common_report(inputs, path), unobserved=tuple(sorted({*world.nodes} - {f.name for f in folders})))
    for number, folder in enumerate(folders, start=1):
        inputs.progress(f"node {number}/{len(folders)}: {printable(folder.name)} …")
        _add(fleet, inputs, folder)
    return fleet


def fleet_of_one(plan: Plan, report: Report, source: str) -> Fleet:
    """Return the plan of one node as that of a fleet, for the formats that describe several nodes.

    Args:
        plan: The plan, or the displayed part of it.
        report: The report for the plan.
        source: The path of the dumps; empty for this host, or an empty node.
    """
    fleet = Fleet(msgspec.structs.replace(report, warnings=()))
    fleet.add(report.node, source, plan, report)
    return fleet


def print_fleet(fleet: Fleet, inputs: Inputs, *, output: str, verbose: bool = False, pager: bool = False) -> None:
    """Print a report on several nodes: as text, JSON, SARIF or HTML."""
    match output:
        case "json":
            print_json(
                fleet_document(msgspec.structs.replace(fleet, report=with_made(fleet.report, inputs, output=output)))
            )
        case "sarif":
            print_json(sarif_log(fleet, __version__))
        case "html":
            print_lines(page(fleet))
        case _:
            colour = has_colour()
            print_long(table.text(fleet, colour=colour, verbose=verbose), colour=colour, pager=pager)


def refuse_failed(fleet: Fleet) -> None:
    """Fail if a node could not be compared, after the report was printed.

    Raises:
        NodesFailedError: There are such nodes; the message names them.
    """
    failed = [printable(row.node) for row in fleet.rows if row.error]
    if failed:
        number = f"{len(failed)} of {counted_noun(len(fleet.rows), 'node')}"
        raise NodesFailedError(
            f"{number} could not be compared: {listed(failed)}", hint="the report has the error of each node"
        )


def _add(fleet: Fleet, inputs: Inputs, folder: Path) -> None:
    """Add the plan of one node, or its error."""
    name, source = folder.name, str(folder)
    try:
        _refuse_unusable(folder, inputs.world)
        plan, report = plan_saved(_of_node(inputs, folder), (source,), skip=(HOST_FILE,))
    except RulegenError as error:
        fleet.fail(name, source, error.message, error.hint)
    except Exception as error:  # noqa: BLE001 - whatever a dump has caused must not affect the other nodes
        fleet.fail(name, source, f"internal error of rulegen: {type(error).__name__}: {error}")
    else:
        fleet.add(name, source, plan, report)


def _refuse_unusable(folder: Path, world: ClusterSnapshot) -> None:
    """Check a folder, and that the cluster has its Node: without it, all endpoints would be those of other nodes.

    Raises:
        ConfigError: The name is not that of a Node of the cluster.
        InputError: The folder is a link, which may lead to any other folder.
    """
    try:
        name = read_node_name(folder.name)
    except ValueError as error:
        raise ConfigError(str(error), hint="give the folder the name of its Node") from None
    if name != folder.name:
        raise ConfigError(f"no Node can have this name; did you mean {name}?", hint="rename the folder")
    if folder.is_symlink():
        raise InputError(str(folder), "is a symbolic link, which is not followed", hint="give a folder")
    faults = [line for rejected in world.rejected if rejected.object == f"Node {name}" for line in rejected.lines()]
    if faults:
        raise ConfigError("its Node object is invalid:\n" + "\n".join(faults), hint="correct the Node object")
    if world.nodes and name not in world.nodes:
        raise ConfigError(
            unknown_node(name, world.nodes), hint="give the folder the name of its Node, or add the Node to -f"
        )


def _of_node(inputs: Inputs, folder: Path) -> Inputs:
    """Return the input for one node: the same objects and options, its name, and the facts of its host."""
    facts = None
    host = inputs.chosen.host
    if _has_facts(folder):
        file = folder / HOST_FILE
        if file.is_symlink():
            raise InputError(str(file), "is a symbolic link, which is not followed", hint="copy the file")
        host = str(file)
    elif not host:
        facts = inputs.facts
    return replace(
        inputs,
        chosen=replace(inputs.chosen, node=folder.name, host=host),
        known_world=inputs.world,
        known_facts=facts,
        progress=Progress(is_silent=True),
        _warnings=Warnings(),
    )


def _common_report(inputs: Inputs, path: str) -> Report:
    """Return the report for all nodes, with the warnings that do not depend on a node."""
    world = inputs.world
    return Report(
        node="",
        mode=inputs.options.mode,
        observed=path,
        rejected=world.rejected,
        unknown_kinds=world.unknown_kinds,
        warnings=(*inputs.configuration[1], *inputs.cautions, *inputs.warnings, *world.warnings),
    )


def _has_facts(folder: Path) -> bool:
    return os.path.lexists(folder / HOST_FILE)


def _folders(path: str) -> tuple[list[Path], Sequence[str]]:
    """Return the subfolders of a folder, sorted by name, and the names of other entries.

    Raises:
        InputError: The folder cannot be read, has no subfolder, or too many.
    """
    folders: list[Path] = []
    others: list[str] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append(Path(path) / entry.name)
                else:
                    others.append(printable(entry.name))
                if len(folders) > MAX_NODES or len(others) > MAX_NODES:
                    raise InputError(path, f"more than {MAX_NODES:,} entries", hint="give fewer nodes at once")
    except OSError as error:
        message = (error.strerror or str(error)).lower()
        raise InputError(path, message, hint="give a folder that has a folder for each node") from None
    if not folders:
        raise InputError(
            path,
            "this folder contains no folder of a node",
            hint="each node has a folder with its name and its dumps: DIR/web-1/iptables.save; for the dumps of one"
            " node, use --observed",
        )
    return sorted(folders), sorted(others)
