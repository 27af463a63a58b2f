"""Who made a document, when, and from what: a part of each plan for machines."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from msgspec.structs import replace

from rulegen import KUBE_PROXY, __version__
from rulegen.cli.wiring.digests import digest, digest_of_objects

if TYPE_CHECKING:
    from rulegen.cli.wiring.inputs import Inputs
    from rulegen.plan.show import Report


def with_made(report: Report, inputs: Inputs | None, *, output: str) -> Report:
    """Return a report with the version, the time, and the digest of objects, configuration and facts, if JSON has it.

    Args:
        report: The report for a plan.
        inputs: What the plan was made from; None if it depends on no object.
        output: `text` or `json`.
    """
    if output != "json":
        return report
    made = {
        "version": __version__,
        "kubeProxy": KUBE_PROXY,
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "inputs": _digest(inputs) if inputs is not None else None,
    }
    return replace(report, made=made)


def _digest(inputs: Inputs) -> str:
    """Return the digest of the inputs. It depends on Secrets, but does not show them."""
    world = inputs.world
    read = (world.services, world.nodes, world.ingresses, world.ingress_classes, world.secrets, world.config_maps)
    objects = [digest_of_objects(sorted(each.items(), key=lambda item: str(item[0]))) for each in read]
    return digest((objects, world.service_cidrs, inputs.options, inputs.facts))
