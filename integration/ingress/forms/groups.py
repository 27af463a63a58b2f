"""Cases in groups that are applied together: none of a group has a part in what another expects."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from integration.ingress import objects

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from integration.ingress.objects import Document

AT_ONCE = 15
"""How many cases are applied together."""

Case = dict[str, Any]
Key = tuple[str, str, str]
"""Kind, namespace and name of an object."""


@dataclass(frozen=True)
class _Part:
    """What a case has for itself: no other case of its group has any of it."""

    settings: str
    keys: frozenset[Key]
    addresses: frozenset[str]
    hosts: frozenset[str]

    def is_apart(self, other: _Part) -> bool:
        """Tell whether neither of both can change what is answered for the other."""
        return (
            self.settings == other.settings
            and self.keys.isdisjoint(other.keys)
            and self.addresses.isdisjoint(other.addresses)
            and not any(_meet(host, their) for host in self.hosts for their in other.hosts)
        )


@dataclass(frozen=True)
class CaseGroup:
    """Cases that are applied together: each has objects, addresses and hosts of its own."""

    number: int
    cases: list[Case]
    parts: list[_Part] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"group-{self.number}"

    @cached_property
    def documents(self) -> list[Document]:
        """The objects of all cases, and once what they all have. Certificates are made once."""
        made = {_key(document): document for case in self.cases for document in objects.of_case(case)}
        return list(made.values())

    @property
    def flags(self) -> Any:
        """What rulegen is started with for all of them."""
        return self.cases[0].get("flags")

    def has_room(self, part: _Part) -> bool:
        """Tell whether a case with this part can be applied with all others."""
        return 0 < len(self.parts) < AT_ONCE and all(part.is_apart(other) for other in self.parts)


def grouped(cases: Iterable[Case]) -> list[CaseGroup]:
    """Return the cases, each in the first group that has room for it; one of an unknown form is alone."""
    made: list[CaseGroup] = []
    for case in cases:
        part = None if _is_for_all(case) else _part(case)
        group = next((group for group in made if part and group.has_room(part)), None)
        if group is None:
            made.append(group := CaseGroup(len(made), []))
        group.cases.append(case)
        group.parts.extend([part] if part else [])
    return made


def _is_for_all(case: Case) -> bool:
    """Tell whether a case is about classes, or about what a plan says of all objects."""
    has_classes = any(document.get("kind") == "IngressClass" for document in case.get("extra_objects", ()))
    return has_classes or "expect_events" in case or "expect_ingress_status" in case


def _part(case: Case) -> _Part | None:
    """Return what a case has for itself; None for a case about requests for any host, and for an unknown form."""
    keys_of_objects = ("ingresses", "services", "endpoints", "extra_objects")
    documents = [document for key in keys_of_objects for document in case.get(key, ())]
    try:
        hosts = frozenset(_hosts(case))
        keys = {_key(document) for document in documents}
        keys |= {("Secret", entry.get("namespace", "default"), entry["name"]) for entry in case.get("secrets", ())}
        addresses = frozenset(address for address, _ in objects.owners(documents))
    except (AttributeError, KeyError, TypeError):
        return None
    settings = json.dumps([case.get("config"), case.get("flags")], sort_keys=True, default=str)
    return None if "" in hosts else _Part(settings, frozenset(keys), addresses, hosts)


def _key(document: Document) -> Key:
    metadata = document["metadata"]
    return document["kind"], metadata.get("namespace", "default"), metadata["name"]


def _hosts(case: Case) -> Iterator[str]:
    """Yield the names that a case serves or asks for, also by aliases; nothing as a name stands for any host."""
    for entry in case.get("ingresses", ()):
        spec, annotations = entry["spec"], entry["metadata"].get("annotations", {})
        named = [rule.get("host") or "" for rule in spec.get("rules", ())]
        named += [""] if "defaultBackend" in spec or "backend" in spec else []
        named += [host for tls in spec.get("tls", ()) for host in tls.get("hosts", ())]
        named += str(annotations.get(f"{objects.PREFIX}/server-alias", "")).replace(",", " ").split()
        for name in map(_plain, named):
            yield from (name, name.removeprefix("www."), f"www.{name}")
    yield from (_plain(request["host"]) for request in case.get("requests", ()))


def _plain(host: str) -> str:
    return host.partition(":")[0].rstrip(".").lower()


def _meet(host: str, other: str) -> bool:
    return host == other or _covers(host, other) or _covers(other, host)


def _covers(pattern: str, host: str) -> bool:
    return pattern.startswith("*.") and host.endswith(pattern[1:])
