"""RBAC: what the code asks of the API server, and nothing else.

What it reads is known by its constants; what it writes it really writes, to a server that lets it do what the manifests
grant.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rulegen.agent.telemetry.events import EventRequest, ObjectReference
from rulegen.apiserver.lists import INGRESS_CLASSES, INGRESSES, NODES, PODS, SERVICE_CIDRS, SERVICES, SLICES
from rulegen.apiserver.referred.reading import path_of
from rulegen.kube.objects.structs import ConfigMap, Secret
from tests.agent.talking import Place, balanced, ingress
from tests.deploy.kustomize import Manifest, build, read
from tests.deploy.places import KUSTOMIZE, OVERLAYS
from tests.deploy.test_manifests import agents, with_component
from tests.fakes.certificates import make_certificate
from tests.servers.fakeapi import FakeApi

Right = tuple[str, str, str]
"""Group, resource, verb."""


def resource(path: str) -> tuple[str, str]:
    """Return the group and the resource that a URL's path leads to."""
    parts = path.strip("/").split("/")
    group = "" if parts[0] == "api" else parts[1]
    return group, parts[-1]


def following(*paths: str) -> set[Right]:
    """Return the rights to list and watch."""
    return {(*resource(path), verb) for path in paths for verb in ("list", "watch")}


SERVICES_AND_NODE = following(SERVICES.path, SLICES.path, NODES) | {("", "nodes", "get")}
RANGES = following(SERVICE_CIDRS.path)
INGRESSES_TOO = SERVICES_AND_NODE | following(INGRESSES.path, INGRESS_CLASSES.path)
BY_NAME = {path for kind in (Secret, ConfigMap) for path in following(path_of(kind, "a"))}


EVENTS = {("events.k8s.io", "events", verb) for verb in ("create", "patch")}
LEASES = {("coordination.k8s.io", "leases", verb) for verb in ("get", "list", "create", "update")}
INGRESS_STATUS = {("networking.k8s.io", "ingresses/status", "patch")}
SERVICE_STATUS = {("", "services/status", "patch")}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    certificate = make_certificate(tmp_path)
    with FakeApi(certificate=certificate, token="t", is_prompt=True) as api:
        place = Place.of(api, tmp_path, certificate)
        yield place
        place.cut()


def written(place: Place, account: str, manifests: list[Manifest], *publications: str) -> set[Right]:
    """Return the rights that a life of an agent uses: it tells, publishes, and takes it all back."""
    rights = granted(manifests, account, everywhere=True) | granted(manifests, account, everywhere=False)
    place.api.allows = lambda done: (done[1], done[2], done[0]) in rights
    place.api.put("ingresses", ingress("web"))
    place.api.put("services", balanced("web", 80))
    recorder = place.recorder()
    for _ in range(2):
        recorder.send(EventRequest(ObjectReference("v1", "Node", "", "node1"), "DriftMended", "Mend", "a rule"))
    for noun in publications:
        publication = place.service_publication() if noun == "services" else None
        node = place.node("node1", "203.0.113.1", publication=publication, group=noun)
        for _ in range(2):
            node.turn()
            place.clock.now += 20
        assert place.published(noun, "web") == ["203.0.113.1"]
        node.stop(for_good=True)
        assert place.published(noun, "web") == []
    assert recorder.log.out.getvalue() == ""
    return {(group, noun, verb) for verb, group, noun in place.api.done}


def granted(manifests: list[Manifest], account: str, *, everywhere: bool) -> set[Right]:
    """Return the rights of an account, those in all namespaces or those in one."""
    roles = {
        (manifest["kind"], manifest["metadata"]["name"]): manifest["rules"]
        for manifest in manifests
        if manifest["kind"].endswith("Role")
    }
    return {
        right
        for manifest in manifests
        if manifest["kind"] == ("ClusterRoleBinding" if everywhere else "RoleBinding")
        and {"kind": "ServiceAccount", "name": account, "namespace": "rulegen"} in manifest["subjects"]
        for right in rights(roles[manifest["roleRef"]["kind"], manifest["roleRef"]["name"]])
    }


def rights(rules: list[Manifest]) -> Iterator[Right]:
    for rule in rules:
        for group in rule["apiGroups"]:
            yield from ((group, noun, verb) for noun in rule["resources"] for verb in rule["verbs"])


def all_roles() -> list[Manifest]:
    files = sorted(KUSTOMIZE.rglob("rbac.yaml"))
    return [manifest for file in files for manifest in read(file) if manifest["kind"].endswith("Role")]


@pytest.mark.parametrize("which", ["iptables", "ipvs", "with-ingress", "beside-kube-proxy"])
def test_the_agent_for_services_may_read_what_it_reads(which: str) -> None:
    manifests = build(KUSTOMIZE / "overlays" / which)

    assert granted(manifests, "rulegen", everywhere=True) == SERVICES_AND_NODE | RANGES | EVENTS
    assert granted(manifests, "rulegen", everywhere=False) == set()


@pytest.mark.parametrize("which", ["with-ingress", "ingress-only"])
def test_the_agent_for_ingresses_may_read_what_it_reads(which: str) -> None:
    manifests = build(KUSTOMIZE / "overlays" / which)

    assert granted(manifests, "rulegen-ingress", everywhere=True) == INGRESSES_TOO | EVENTS | INGRESS_STATUS
    here = granted(manifests, "rulegen-ingress", everywhere=False)
    assert here == BY_NAME | {("", noun, "get") for noun in ("secrets", "configmaps")} | LEASES


def test_events_need_only_the_granted_permissions(place: Place) -> None:
    assert written(place, "rulegen", build(KUSTOMIZE / "overlays/iptables")) == EVENTS


def test_ingresses_are_published_with_the_rights_that_there_are(place: Place) -> None:
    manifests = build(KUSTOMIZE / "overlays/ingress-only")

    assert written(place, "rulegen-ingress", manifests, "ingresses") == EVENTS | LEASES | INGRESS_STATUS


def test_services_are_published_with_the_rights_of_the_component(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "with"
    folder.mkdir()
    manifests = with_component(folder, "service-status")

    assert "--publish-service-status" in agents(manifests)["services"]["containers"][0]["args"]
    assert written(place, "rulegen", manifests, "services") == EVENTS | LEASES | SERVICE_STATUS
    assert granted(manifests, "rulegen", everywhere=False) == LEASES


def test_pods_are_read_with_the_rights_of_the_component(tmp_path: Path) -> None:
    manifests = with_component(tmp_path, "endpoints-from-pods")
    pod = agents(manifests)["services"]

    for container in (*pod["initContainers"], *pod["containers"]):
        assert "--endpoints=pods" in container["args"]
    assert granted(manifests, "rulegen", everywhere=True) == SERVICES_AND_NODE | RANGES | following(PODS.path) | EVENTS


@pytest.mark.parametrize("which", OVERLAYS)
def test_only_ingress_roles_read_secrets_of_all_namespaces(which: str) -> None:
    manifests = build(KUSTOMIZE / "overlays" / which)
    wide = granted(manifests, "rulegen", everywhere=True) | granted(manifests, "rulegen-ingress", everywhere=True)

    assert any(noun == "secrets" for _, noun, _ in wide) == (which == "takeover-ingress-nginx")


@pytest.mark.parametrize("role", all_roles(), ids=lambda role: f"{role['kind']}-{role['metadata']['name']}")
def test_a_role_has_no_wildcard_and_writes_little(role: Manifest) -> None:
    for rule in role["rules"]:
        assert set(rule) <= {"apiGroups", "resources", "verbs", "resourceNames"}
        assert not {"*"} & {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
        groups = {(group, noun) for group in rule["apiGroups"] for noun in rule["resources"]}
        is_written = groups & {(group, noun) for group, noun, _ in EVENTS | LEASES | INGRESS_STATUS | SERVICE_STATUS}
        assert set(rule["verbs"]) <= {"get", "list", "watch"} or is_written == groups
