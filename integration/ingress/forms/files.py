"""The files of cases and of hostile entries: an unknown key fails, and so does an unknown word of a closed list."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from integration.ingress.objects import UnknownForm
from tests.shared import YamlLoader

OWN = Path(__file__).parents[2] / "ingresses" / "files"
"""Files of the same forms that show each form once."""

_CASE = {"name", "source", "compat", "note", "tags", "ingresses", "services", "endpoints", "requests"}
_CASE |= {"secrets", "config", "flags", "extra_objects", "expect_events", "expect_ingress_status"}
_EVENT = {"ingress", "type", "contains"}
_ENTRY = {"id", "class", "field", "value", "must", "why", "cve", "objects"}
_ENTRY |= {"objects_extra", "configmaps", "victim", "render_ok"}
_CONTROL = {"host": "ok.test", "service": "echo"}

STATUSES = ("has-address", "no-address")
MUST = ("rejected", "rejected_or_literal", "annotation_ignored_or_rejected", "fail_closed")
MUST += ("default_cert", "literal", "reported")
CLASSES = ("annotation", "configmap", "endpointslice", "path", "secret", "service", "spec")


def cases(path: Path) -> list[dict[str, Any]]:
    """Return the cases of a file; each is checked by `check_case`, so that one fault stops one case only."""
    return _listed(path, "cases", set())


def entries(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a file of hostile objects, to be checked by `check_entry`."""
    return _listed(path, "entries", {"control"})


def _listed(path: Path, key: str, more: set[str]) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as text:
        whole = YamlLoader(text).get_single_data()
    if whole.keys() - {"version", key} - more or whole["version"] != 1:
        raise UnknownForm(f"{path.name}: keys {sorted(whole)}, version {whole.get('version')}")
    if whole.get("control", _CONTROL) != _CONTROL:
        raise UnknownForm(f"{path.name}: control {whole['control']}")
    # What an alias of YAML repeats is changed in one place only.
    return [copy.deepcopy(element) for element in whole[key]]


def check_case(case: Mapping[str, Any]) -> None:
    """Raise UnknownForm for what is not known in a case, beside its requests."""
    _known("keys of a case", case.keys(), _CASE)
    for event in case.get("expect_events", ()):
        _known("keys of an event", event.keys(), _EVENT)
        _known("type of an event", {event.get("type", "Warning")}, {"Warning", "Normal"})
    _known("expect_ingress_status", {case.get("expect_ingress_status", STATUSES[0])}, set(STATUSES))


def check_entry(entry: Mapping[str, Any]) -> None:
    """Raise UnknownForm for what is not known in a hostile entry."""
    _known("keys of an entry", entry.keys(), _ENTRY)
    _known("must", {entry["must"]}, set(MUST))
    _known("class", {entry["class"]}, set(CLASSES))
    for configmap in entry.get("configmaps", ()):
        _known("keys of a ConfigMap", configmap.keys(), {"name", "data"})
    for key in ("victim", "render_ok"):
        _known(key, {entry.get(key, True)}, {True, False})


def _known(what: str, given: Any, known: set[Any]) -> None:
    unknown = sorted(map(str, set(given) - known))
    if unknown:
        raise UnknownForm(f"{what}: {', '.join(unknown)}")
