"""What the fake API server checks and does when it is written to, as a real one would.

Sources: the API conventions for patches, resourceVersions and subresources; the validation of events.k8s.io/v1 and
coordination.k8s.io/v1 as their reference documents it.
"""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

MICRO_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z\Z")
SUBDOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?\Z")
QUALIFIED = re.compile(r"([a-z0-9][-a-z0-9.]*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?\Z")
CONDITION_REASON = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?\Z")
WITH_STATUS = {"services", "ingresses", "nodes"}
PATCHES = {"application/merge-patch+json", "application/strategic-merge-patch+json"}


@dataclass
class RefusalError(Exception):
    """What the server answers instead."""

    code: int
    message: str


def patched(kept: Object, patch: Any, kind: str) -> Object:
    """Return an object after a patch.

    Raises:
        RefusalError: Of a content type that is none of a patch, or no patch.
    """
    if kind not in PATCHES:
        raise RefusalError(415, f"the body of the request was in an unknown format - {kind}")
    if not isinstance(patch, dict):
        raise RefusalError(400, "a patch is an object")
    return merged(kept, patch, is_strategic="strategic" in kind)


def merged(kept: Any, patch: Any, *, is_strategic: bool, path: str = "") -> Any:
    """Return a value after a merge patch (RFC 7396); strategic ones join conditions by their type."""
    if is_strategic and path == "status.conditions":
        return _joined(kept or [], patch)
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(kept) if isinstance(kept, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value, is_strategic=is_strategic, path=f"{path}.{key}".lstrip("."))
    return result


def _joined(kept: list[Object], patch: list[Object]) -> list[Object]:
    by_type = {entry["type"]: entry for entry in kept}
    for entry in patch:
        if entry.get("$patch") == "delete":
            by_type.pop(entry["type"], None)
        else:
            by_type[entry["type"]] = {**by_type.get(entry["type"], {}), **entry}
    return list(by_type.values())


def changed(old: Object, new: Object, sub: str) -> Object:
    """Return what is kept after an update: `status` changes the status alone, anything else all but the status.

    Raises:
        RefusalError: It is not the object that there is (any longer).
    """
    metadata = new.get("metadata", {})
    version, uid = metadata.get("resourceVersion"), metadata.get("uid")
    if version is not None and version != old["metadata"]["resourceVersion"]:
        raise RefusalError(409, "the object has been modified; please apply your changes to the latest version")
    if uid is not None and uid != old["metadata"].get("uid"):
        raise RefusalError(409, f"Precondition failed: UID in precondition: {uid}")
    if sub == "status":
        return {**old, "status": new.get("status", {})}
    kept = {**new, "metadata": {**metadata, "uid": old["metadata"].get("uid")}}
    return {**kept, "status": old["status"]} if "status" in old else kept


def check(collection: str, new: Object, old: Object | None = None) -> None:
    """Raise RefusalError where a real server would find faults."""
    faults: list[str] = []
    metadata = new["metadata"]
    if not SUBDOMAIN.match(metadata.get("name", "")):
        faults.append("metadata.name")
    for key, value in metadata.get("labels", {}).items():
        if not QUALIFIED.match(key) or not LABEL_VALUE.match(value):
            faults.append(f"metadata.labels: {key}: {value}")
    faults += [f"metadata.annotations: {key}" for key in metadata.get("annotations", {}) if not QUALIFIED.match(key)]
    for owner in metadata.get("ownerReferences", ()):
        faults += [
            f"metadata.ownerReferences.{field}"
            for field in ("apiVersion", "kind", "name", "uid")
            if not owner.get(field)
        ]
    faults += {"events": _event, "leases": _lease, "services": _status, "ingresses": _status}.get(
        collection, lambda _new, _old: []
    )(new, old)
    if faults:
        raise RefusalError(422, f"{collection} is invalid: {', '.join(faults)}")


def _event(new: Object, old: Object | None) -> list[str]:
    faults = [
        f"{field}: required"
        for field in ("eventTime", "reportingController", "reportingInstance")
        if not new.get(field)
    ]
    faults += [f"{field}: 1 to 128" for field in ("action", "reason") if not 1 <= len(new.get(field, "")) <= 128]
    if len(new.get("reportingInstance", "")) > 128:
        faults.append("reportingInstance: at most 128")
    if not QUALIFIED.match(new.get("reportingController", "")):
        faults.append("reportingController: not qualified")
    if new.get("type") not in {"Normal", "Warning"}:
        faults.append("type")
    if len(new.get("note", "").encode()) > 1024:
        faults.append("note: at most 1024 bytes")
    if not MICRO_TIME.match(new.get("eventTime", "")):
        faults.append("eventTime: no MicroTime")
    where, regarding = new["metadata"].get("namespace"), new.get("regarding", {})
    if where != (regarding.get("namespace") or "default"):
        faults.append("involvedObject.namespace: does not match event.namespace")
    faults += [f"{field}: needs to be unset" for field in new if field.startswith("deprecated")]
    series = new.get("series")
    if series is not None:
        if series.get("count", 0) < 2:
            faults.append("series.count: should be at least 2")
        if not MICRO_TIME.match(series.get("lastObservedTime", "")):
            faults.append("series.lastObservedTime: no MicroTime")
    if old is not None:
        fixed = (
            "regarding",
            "reason",
            "note",
            "type",
            "action",
            "eventTime",
            "reportingController",
            "reportingInstance",
        )
        faults += [f"{field}: field is immutable" for field in fixed if new.get(field) != old.get(field)]
    return faults


def _lease(new: Object, _: Object | None) -> list[str]:
    spec = new.get("spec", {})
    faults = [
        f"spec.{field}: no MicroTime"
        for field in ("acquireTime", "renewTime")
        if spec.get(field) is not None and not MICRO_TIME.match(spec[field])
    ]
    duration = spec.get("leaseDurationSeconds")
    if duration is not None and (not isinstance(duration, int) or duration <= 0):
        faults.append("spec.leaseDurationSeconds: must be greater than 0")
    if spec.get("leaseTransitions", 0) < 0:
        faults.append("spec.leaseTransitions")
    faults += [f"spec.{field}: unknown" for field in spec.keys() - LEASE_FIELDS]
    return faults


LEASE_FIELDS = {"holderIdentity", "leaseDurationSeconds", "acquireTime", "renewTime", "leaseTransitions"}


def _status(new: Object, _: Object | None) -> list[str]:
    faults = []
    status = new.get("status", {})
    entries = status.get("loadBalancer", {}).get("ingress", [])
    for entry in entries:
        if not ("ip" in entry) ^ ("hostname" in entry):
            faults.append("status.loadBalancer.ingress: ip or hostname")
        if "ip" in entry and not re.fullmatch(r"[0-9.]+|[0-9a-f:]*:[0-9a-f:.]*", entry["ip"]):
            faults.append(f"status.loadBalancer.ingress.ip: {entry['ip']}")
        if "hostname" in entry and not SUBDOMAIN.match(entry["hostname"]):
            faults.append(f"status.loadBalancer.ingress.hostname: {entry['hostname']}")
    if new["kind"] == "Service":
        if entries and new["spec"].get("type") != "LoadBalancer":
            faults.append('status.loadBalancer.ingress: may only be used when `spec.type` is "LoadBalancer"')
        for condition in status.get("conditions", ()):
            if not QUALIFIED.match(condition.get("type", "")) or condition.get("status") not in {
                "True",
                "False",
                "Unknown",
            }:
                faults.append("status.conditions.type")
            if not CONDITION_REASON.match(condition.get("reason", "")) or not condition.get("lastTransitionTime"):
                faults.append("status.conditions.reason")
            if re.search(r"\.\d", condition.get("lastTransitionTime", "")):
                faults.append("status.conditions.lastTransitionTime: no Time")
    return faults


def body_of(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        raise RefusalError(400, "the body is no JSON") from None
