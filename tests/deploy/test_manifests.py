"""What `kubectl apply -k` sends is valid, whole, and means what it says."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from rulegen import __version__
from rulegen.cli.engines.nginx.defaults import NGINX_DIR
from rulegen.kube.proxyconfig.reading import read_config
from rulegen.model.ingress.values.classes import CLASS_NAME, CONTROLLER, DEFAULT_PREFIX
from tests.deploy.kustomize import CLUSTER_WIDE, Manifest, build, name
from tests.deploy.places import COMPONENTS, DEPLOY, KUSTOMIZE, OVERLAYS, unknown
from tests.project.places import run

OLDEST = "1.25"
NEWEST = "1.37"

CAPABILITIES = {
    "services": {"NET_ADMIN", "NET_RAW"},
    "ingress": {"NET_BIND_SERVICE", "SETUID", "SETGID", "CHOWN", "DAC_OVERRIDE", "KILL", "SYS_PTRACE"},
}


def overlay(which: str) -> list[Manifest]:
    return build(KUSTOMIZE / "overlays" / which)


def with_component(tmp_path: Path, component: str) -> list[Manifest]:
    """Return the overlay with everything, and a component."""
    lines = {"resources": ["overlays/with-ingress"], "components": [f"components/{component}"]}
    for part in ("base", "overlays", "components"):
        (tmp_path / part).symlink_to(KUSTOMIZE / part)
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(lines))
    return build(tmp_path)


def agents(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Return the DaemonSets, by what they keep."""
    sets = [manifest for manifest in manifests if manifest["kind"] == "DaemonSet"]
    return {
        manifest["metadata"]["labels"]["app.kubernetes.io/component"]: manifest["spec"]["template"]["spec"]
        for manifest in sets
    }


def every_agent() -> list[Any]:
    """Return each Pod of each overlay, as parameters."""
    return [pytest.param(pod, id=f"{o}-{what}") for o in OVERLAYS for what, pod in agents(overlay(o)).items()]


@pytest.mark.not_quick
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("which", OVERLAYS)
def test_an_overlay_is_valid(which: str, version: str) -> None:
    validate = pytest.importorskip("kubernetes_validate").validate

    for manifest in overlay(which):
        validate(manifest, version, strict=True)


@pytest.mark.parametrize("which", OVERLAYS)
def test_kustomize_makes_the_same_of_an_overlay(which: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("there is no kubectl here")
    done = run("kubectl", "kustomize", KUSTOMIZE / "overlays" / which)
    assert done.returncode == 0, done.stderr

    built = {name(manifest): manifest for manifest in yaml.safe_load_all(done.stdout)}

    assert built == {name(manifest): manifest for manifest in overlay(which)}


@pytest.mark.not_quick
@pytest.mark.parametrize("component", COMPONENTS)
def test_a_component_adds_to_an_overlay(component: str, tmp_path: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    manifests = with_component(tmp_path, component)

    assert len(manifests) > len(overlay("with-ingress"))
    for manifest in manifests:
        validate(manifest, NEWEST, strict=True)


@pytest.mark.parametrize("which", OVERLAYS)
def test_what_is_referred_to_is_there(which: str) -> None:
    manifests = overlay(which)
    there = {name(manifest) for manifest in manifests}

    for kind, namespace, _ in there:
        assert (namespace == "") == (kind in CLUSTER_WIDE)
        assert namespace in {"", "rulegen"}
    for pod in agents(manifests).values():
        assert ("ServiceAccount", "rulegen", pod["serviceAccountName"]) in there
        volumes = {volume["name"] for volume in pod["volumes"]}
        for volume in pod["volumes"]:
            assert "configMap" not in volume or ("ConfigMap", "rulegen", volume["configMap"]["name"]) in there
        containers = [*pod.get("initContainers", ()), *pod["containers"]]
        assert {mount["name"] for container in containers for mount in container["volumeMounts"]} == volumes
        ports = {port["name"] for port in pod["containers"][0]["ports"]}
        probes = [pod["containers"][0][f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")]
        assert {probe["httpGet"]["port"] for probe in probes} <= ports


@pytest.mark.parametrize("pod", every_agent())
def test_a_container_is_started_with_options_that_there_are(pod: Manifest) -> None:
    for container in [*pod.get("initContainers", ()), *pod["containers"]]:
        assert "command" not in container
        assert container["args"][0] == "run"
        assert unknown(container["args"]) == set()
        assert "--node=$(NODE_NAME)" in container["args"]
        assert "NODE_NAME" in {variable["name"] for variable in container["env"]}
        assert container["image"] == f"rulegen:{__version__}"


@pytest.mark.parametrize("pod", every_agent())
def test_the_probes_ask_where_the_agent_answers(pod: Manifest) -> None:
    (container,) = pod["containers"]
    option = next((word for word in container["args"] if word.startswith("--health-address=")), ":10256")
    port = next(entry["containerPort"] for entry in container["ports"] if entry["name"] == "health")

    assert option.rpartition(":")[2] == str(port)


def test_agents_that_may_meet_on_a_node_share_no_port() -> None:
    pods = [*agents(overlay("with-ingress")).values(), *agents(overlay("beside-kube-proxy")).values()]
    ports = [entry["containerPort"] for pod in pods for entry in pod["containers"][0]["ports"]]
    metrics = [word for pod in pods for word in pod["containers"][0]["args"] if word.startswith("--metrics-address")]

    assert len(ports) == len(set(ports))
    assert len(metrics) == len(set(metrics)) == len(pods) - 1  # one has the default


@pytest.mark.parametrize("pod", every_agent())
def test_an_agent_has_no_right_that_it_does_not_need(pod: Manifest) -> None:
    (container,) = pod["containers"]
    rights = container["securityContext"]
    what = "ingress" if "--ingress" in container["args"] else "services"

    assert set(rights["capabilities"]["add"]) == CAPABILITIES[what]
    assert rights["capabilities"]["drop"] == ["ALL"]
    assert (rights["privileged"], rights["allowPrivilegeEscalation"]) == (False, False)
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert all(
        container["securityContext"]["readOnlyRootFilesystem"]
        for container in [*pod.get("initContainers", ()), container]
    )
    assert not {"hostPID", "hostIPC"} & pod.keys()
    assert pod["enableServiceLinks"] is False
    paths = {volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume}
    assert paths <= (
        {"/var/lib/rulegen"} if what == "ingress" else {"/run/xtables.lock", "/run/rulegen", "/lib/modules"}
    )


@pytest.mark.parametrize("pod", every_agent())
def test_the_token_is_for_root_alone(pod: Manifest) -> None:
    """The kubelet makes it 0600 where all containers run as one user, 0640 with a group, and 0644 else."""
    assert pod["securityContext"]["runAsUser"] == 0
    assert "fsGroup" not in pod["securityContext"]
    for container in [*pod.get("initContainers", ()), *pod["containers"]]:
        assert container["securityContext"].get("runAsUser", 0) == 0
    assert not any("projected" in volume for volume in pod["volumes"])


@pytest.mark.parametrize("which", OVERLAYS)
def test_a_token_is_given_to_the_agent_alone(which: str) -> None:
    manifests = overlay(which)

    assert all(pod["automountServiceAccountToken"] is True for pod in agents(manifests).values())
    accounts = [manifest for manifest in manifests if manifest["kind"] == "ServiceAccount"]
    assert accounts
    assert all(manifest["automountServiceAccountToken"] is False for manifest in accounts)


def test_only_the_first_sync_is_privileged_and_it_ends() -> None:
    pods = {(which, what): pod for which in OVERLAYS for what, pod in agents(overlay(which)).items()}
    privileged = {
        key: container["args"]
        for key, pod in pods.items()
        for container in pod.get("initContainers", ())
        if container["securityContext"].get("privileged")
    }

    assert set(privileged) == {(which, "services") for which in ("iptables", "ipvs", "with-ingress")}
    assert all("--once" in args for args in privileged.values())


def test_beside_kube_proxy_only_looks() -> None:
    pod = agents(overlay("beside-kube-proxy"))["services"]

    assert "initContainers" not in pod
    assert "--drift=report" in pod["containers"][0]["args"]


@pytest.mark.parametrize("pod", every_agent())
def test_an_agent_runs_on_every_node_and_is_not_evicted(pod: Manifest) -> None:
    assert pod["hostNetwork"] is True
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["priorityClassName"] in {"system-node-critical", "system-cluster-critical"}


SUFFIXES = {"Mi": 2**20, "Gi": 2**30, "M": 2**20, "G": 2**30}
"""Of Kubernetes and of systemd, whose M is 2^20 (systemd.resource-control(5))."""


def size(text: str) -> int:
    """Return a size in bytes."""
    number, suffix = re.fullmatch(r"(\d+)(\w+)", text).groups()  # type: ignore[union-attr]
    return int(number) * SUFFIXES[suffix]


@pytest.mark.parametrize("pod", every_agent())
def test_memory_is_limited_and_processors_are_not(pod: Manifest) -> None:
    what = "ingress" if "--ingress" in pod["containers"][0]["args"] else "services"
    unit = (DEPLOY / f"systemd/rulegen{'-ingress' * (what == 'ingress')}.service").read_text(encoding="utf-8")
    (most,) = re.findall(r"^MemoryMax=(\w+)$", unit, re.MULTILINE)

    for container in [*pod.get("initContainers", ()), *pod["containers"]]:
        resources = container["resources"]
        assert set(resources["limits"]) == {"memory"}
        assert size(resources["requests"]["memory"]) * 2 < size(resources["limits"]["memory"]) == size(most)


def test_the_readme_has_the_figures_of_the_limits() -> None:
    text = (DEPLOY / "README.md").read_text(encoding="utf-8")
    for pod in agents(overlay("with-ingress")).values():
        resources = pod["containers"][0]["resources"]
        assert f"| {resources['requests']['memory']} | {resources['limits']['memory']} |" in text
    drop_in = (DEPLOY / "systemd/rulegen-userspace.conf").read_text(encoding="utf-8")
    (most,) = re.findall(r"^MemoryMax=(\w+)$", drop_in, re.MULTILINE)
    assert f"With the drop-in for userspace mode, the limit is {most}." in text


def test_nginx_has_the_time_and_the_folder_it_needs() -> None:
    pod = agents(overlay("ingress-only"))["ingress"]

    assert pod["terminationGracePeriodSeconds"] > 240  # worker-shutdown-timeout
    assert NGINX_DIR.startswith(f"{pod['containers'][0]['volumeMounts'][0]['mountPath']}/")
    assert pod["nodeSelector"]["rulegen.io/ingress"] == "true"


def test_the_class_is_the_one_that_is_served_without_options() -> None:
    classes = {
        which: [manifest for manifest in overlay(which) if manifest["kind"] == "IngressClass"] for which in OVERLAYS
    }

    for which in ("with-ingress", "ingress-only"):
        (ingress_class,) = classes[which]
        assert (ingress_class["metadata"]["name"], ingress_class["spec"]["controller"]) == (CLASS_NAME, CONTROLLER)
    assert classes["takeover-ingress-nginx"] == []  # ingress-nginx has made its own


def test_a_takeover_serves_what_ingress_nginx_served() -> None:
    args = agents(overlay("takeover-ingress-nginx"))["ingress"]["containers"][0]["args"]

    assert {"--controller-class=k8s.io/ingress-nginx", "--ingress-class=nginx"} <= set(args)
    assert f"--annotations-prefix={DEFAULT_PREFIX}" in args


def test_the_configuration_is_one_that_kube_proxy_would_read() -> None:
    for mode in ("iptables", "ipvs"):
        (manifest,) = (
            candidate for candidate in overlay(mode) if name(candidate) == ("ConfigMap", "rulegen", "rulegen")
        )
        ((file, text),) = manifest["data"].items()
        config, unknown_fields = read_config(yaml.safe_load(text), file)

        assert (config.mode, unknown_fields) == (mode, ())
        assert f"--config=/etc/rulegen/{file}" in agents(overlay(mode))["services"]["containers"][0]["args"]


def test_the_readme_names_every_overlay_and_component() -> None:
    text = (DEPLOY / "README.md").read_text(encoding="utf-8")

    assert [listed for listed in OVERLAYS if f"| `{listed}` |" not in text] == []
    assert [listed for listed in COMPONENTS if f"`components/{listed}`" not in text] == []
