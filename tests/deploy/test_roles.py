"""RBAC: what the code asks of the API server, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rulegen.host import apiwatch
from rulegen.host.apiserver import INGRESS_CLASSES, INGRESSES, NODES, SERVICES, SLICES
from rulegen.kube.objects import ConfigMap, Secret
from rulegen.kube.world import ObjectName
from tests.deploy.kustomize import Manifest, build, read
from tests.deploy.places import KUSTOMIZE, OVERLAYS

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
INGRESSES_TOO = SERVICES_AND_NODE | following(INGRESSES.path, INGRESS_CLASSES.path)
BY_NAME = {
    one for kind in (Secret, ConfigMap) for one in following(apiwatch._one_object(kind, ObjectName("a", "b")).path)
}


def granted(manifests: list[Manifest], account: str, *, everywhere: bool) -> set[Right]:
    """Return the rights of an account, those in all namespaces or those in one."""
    roles = {(one["kind"], one["metadata"]["name"]): one["rules"] for one in manifests if one["kind"].endswith("Role")}
    return {
        right
        for one in manifests
        if one["kind"] == ("ClusterRoleBinding" if everywhere else "RoleBinding")
        and {"kind": "ServiceAccount", "name": account, "namespace": "rulegen"} in one["subjects"]
        for right in rights(roles[one["roleRef"]["kind"], one["roleRef"]["name"]])
    }


def rights(rules: list[Manifest]) -> Iterator[Right]:
    for rule in rules:
        for group in rule["apiGroups"]:
            yield from ((group, noun, verb) for noun in rule["resources"] for verb in rule["verbs"])


def all_roles() -> list[Manifest]:
    files = sorted(KUSTOMIZE.rglob("rbac.yaml"))
    return [one for file in files for one in read(file) if one["kind"].endswith("Role")]


@pytest.mark.parametrize("which", ["iptables", "with-ingress", "beside-kube-proxy"])
def test_the_agent_for_services_may_read_what_it_reads(which: str) -> None:
    manifests = build(KUSTOMIZE / "overlays" / which)

    assert granted(manifests, "rulegen", everywhere=True) == SERVICES_AND_NODE
    assert granted(manifests, "rulegen", everywhere=False) == set()


@pytest.mark.parametrize("which", ["with-ingress", "ingress-only"])
def test_the_agent_for_ingresses_may_read_what_it_reads(which: str) -> None:
    manifests = build(KUSTOMIZE / "overlays" / which)

    assert granted(manifests, "rulegen-ingress", everywhere=True) == INGRESSES_TOO
    here = granted(manifests, "rulegen-ingress", everywhere=False)
    assert here == BY_NAME | {("", noun, "get") for noun in ("secrets", "configmaps")}


@pytest.mark.parametrize("which", OVERLAYS)
def test_secrets_of_all_namespaces_are_read_only_where_ingress_nginx_read_them(which: str) -> None:
    manifests = build(KUSTOMIZE / "overlays" / which)
    wide = granted(manifests, "rulegen", everywhere=True) | granted(manifests, "rulegen-ingress", everywhere=True)

    assert any(noun == "secrets" for _, noun, _ in wide) == (which == "takeover-ingress-nginx")


@pytest.mark.parametrize("role", all_roles(), ids=lambda role: f"{role['kind']}-{role['metadata']['name']}")
def test_a_role_has_no_wildcard_and_writes_nothing(role: Manifest) -> None:
    for rule in role["rules"]:
        assert set(rule) <= {"apiGroups", "resources", "verbs", "resourceNames"}
        assert not {"*"} & {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
        assert set(rule["verbs"]) <= {"get", "list", "watch"}
