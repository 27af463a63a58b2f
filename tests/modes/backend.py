"""The row of a mode: each ClusterIP is a gate."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from rulegen.backends.backend import Backend
from rulegen.kube.proxyconfig.modes import ModeSections
from rulegen.model.services.ir import ResolvedNode, ResolvedService
from rulegen.model.services.modes import ModeNeeds
from rulegen.net import Family, parse_address
from rulegen.ownership.table import OwnershipContext
from rulegen.plan.fragments import OwnedObjects
from tests.modes.language import NAME, Gate, GateKey


def compile_node(node: ResolvedNode, *, counts: bool, filled: Collection[str]) -> OwnedObjects:
    return OwnedObjects("", node.family, {NAME: {}})


def compile_service(service: ResolvedService, node: ResolvedNode, *, counts: bool) -> OwnedObjects:
    gates = {
        GateKey(port.protocol.lower(), str(port.cluster_ip), port.port): Gate(tuple(e.text for e in port.cluster))
        for port in service.ports
        if port.family is node.family and port.cluster_ip is not None
    }
    return OwnedObjects(str(service.name), node.family, {NAME: gates})


@dataclass(frozen=True)
class OurGates:
    family: Family | None

    def ours(self, state: Mapping[GateKey, Gate]) -> dict[Any, Any]:
        version = {Family.IPV4: 4, Family.IPV6: 6}.get(self.family) if self.family else None
        return {
            key: gate
            for key, gate in state.items()
            if gate.by == "rulegen" and parse_address(key.address).version == version
        }


def ownership(context: OwnershipContext) -> OurGates:
    return OurGates(context.family)


GATES = Backend(
    mode="gates",
    languages=(NAME,),
    needs=ModeNeeds(),
    sections=ModeSections(),
    compile_node=compile_node,
    compile_service=compile_service,
    ownership={NAME: ownership},
)
