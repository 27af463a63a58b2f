"""Valid Ingresses and IngressClasses are accepted, and all faults are reported at once. More invalid ones: hostile/."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rulegen.errors import Rejected
from rulegen.kube.objects.names import Decoded
from rulegen.kube.objects.structs import (
    HTTPIngressPath,
    HTTPIngressRuleValue,
    Ingress,
    IngressBackend,
    IngressRule,
    IngressServiceBackend,
    IngressSpec,
    ObjectMeta,
    ServiceBackendPort,
)
from rulegen.kube.reading.decode import decode
from rulegen.kube.reading.documents import Document
from rulegen.kube.validation.findings import Findings
from rulegen.kube.validation.ingress import MAX_PATH_BYTES, PATH_TYPES, check_ingress, is_host
from rulegen.kube.validation.validate import check

NAME = {"name": "shop", "namespace": "shop"}
WEB = {"service": {"name": "web", "port": {"number": 80}}}


def decoded(content: dict[str, Any], kind: str = "Ingress") -> Any:
    raw = msgspec.Raw(json.dumps({"metadata": NAME, **content}).encode())
    result = decode(Document("x", "networking.k8s.io/v1", kind, raw))
    assert isinstance(result, Decoded | Rejected)
    if isinstance(result, Decoded):
        assert check(result.object, "x") == result  # complete: no default is missing
    return result


def typed(path: str, path_type: str = "Exact", host: str = "a.test") -> Ingress:
    backend = IngressBackend(service=IngressServiceBackend(name="web", port=ServiceBackendPort(number=80)))
    paths = (HTTPIngressPath(path=path, path_type=path_type, backend=backend),)
    rule = IngressRule(host=host, http=HTTPIngressRuleValue(paths=paths))
    return Ingress(metadata=ObjectMeta(name="a", namespace="b"), spec=IngressSpec(rules=(rule,)))


def faults(ingress: Ingress) -> list[str]:
    findings = Findings()
    check_ingress(ingress, findings)
    return [str(fault) for fault in findings.faults]


FINE = {
    "default backend": {"defaultBackend": WEB},
    "host alone": {"rules": [{"host": "a.test"}], "defaultBackend": WEB},
    "no host": {"rules": [{"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": WEB}]}}]},
    "empty host": {"rules": [{"host": ""}]},
    "tls": {"tls": [{"hosts": ["a.test", "*.b.test"], "secretName": "cert"}], "rules": [{"host": "a.test"}]},
    "tls without anything": {"tls": [{}], "rules": [{"host": "a.test"}]},
    "tls for an address": {"tls": [{"hosts": ["10.0.0.1"]}], "rules": [{"host": "a.test"}]},
    "class": {"ingressClassName": "rulegen.internal", "defaultBackend": WEB},
    "port by name": {"defaultBackend": {"service": {"name": "web", "port": {"name": "http"}}}},
    "port by name, number as Go prints none": {
        "defaultBackend": {"service": {"name": "web", "port": {"name": "http", "number": 0}}}
    },
    "service that starts with a digit": {"defaultBackend": {"service": {"name": "1web", "port": {"number": 1}}}},
    "resource": {"defaultBackend": {"resource": {"apiGroup": "k8s.example.com", "kind": "Bucket", "name": "icons"}}},
    "resource of the core": {"defaultBackend": {"resource": {"kind": "ConfigMap", "name": "a.b_C"}}},
}


@pytest.mark.parametrize("name", FINE)
def test_valid_ingresses(name: str) -> None:
    result = decoded({"spec": FINE[name]})
    assert isinstance(result, Decoded), result
    assert result.warnings == ()


@pytest.mark.parametrize(
    "host",
    ["a", "a.test", "*.a.test", "*.test", "xn--nxasmq6b.test", "1.2.3", "0a", "a-b.c--d", "a" * 253, "*." + "a" * 251],
)
def test_hosts(host: str) -> None:
    assert is_host(host)
    assert faults(typed("/", host=host)) == []


@pytest.mark.parametrize(
    "host",
    [
        *("", "*", "*.", "**.a", "*a.test", "a.*", "A", "a_b", "-a", "a-", "a..b", ".a", "a.", "1.2.3.4", "01.2.3.4"),
        *("::1", "a" * 254, "*." + "a" * 252, "a\n", "a ", "a;", "a}", "a\\", 'a"', "a'", "~a", "$a", "\uff41", "a\0"),
    ],
)
def test_invalid_hosts(host: str) -> None:
    assert not is_host(host)
    if host:
        (fault,) = faults(typed("/", host=host))
        assert fault.startswith("spec.rules[0].host: ")


@pytest.mark.parametrize("path_type", PATH_TYPES)
@pytest.mark.parametrize(
    "path",
    [
        *(
            "/",
            "/a",
            "/a/",
            "/a.b/..c/.d/e..",
            "/...",
            "/a b",
            '/"',
            "/\\",
            "/;{}#$'",
            "/%20",
            "/ä",
            "/(.*)",
            "/a?b",
            "/~",
        ),
        "/" + "a" * (MAX_PATH_BYTES - 1),
    ],
)
def test_paths_of_any_type(path: str, path_type: str) -> None:
    assert faults(typed(path, path_type)) == []


@pytest.mark.parametrize("path", ["//", "/a//", "/./", "/a/../b", "/.", "/a/..", "/%2f", "/a%2F"])
def test_paths_valid_only_as_implementation_specific(path: str) -> None:
    assert faults(typed(path, "ImplementationSpecific")) == []
    assert len(faults(typed(path, "Exact"))) == len(faults(typed(path, "Prefix"))) == 1


@pytest.mark.parametrize("path_type", PATH_TYPES)
@pytest.mark.parametrize("code", [*range(0x20), 0x7F])
def test_no_control_character_gets_into_a_path(path_type: str, code: int) -> None:
    for path in (f"/{chr(code)}", f"/a{chr(code)}b", f"/a{chr(code)}"):
        assert [fault for fault in faults(typed(path, path_type)) if "control characters" in fault]


@pytest.mark.parametrize("path_type", PATH_TYPES)
def test_half_a_surrogate_pair_is_not_a_path(path_type: str) -> None:
    assert faults(typed("/\ud800", path_type)) == [
        r'spec.rules[0].http.paths[0].path: "/\ud800" is not Unicode text',
    ]


def test_an_empty_implementation_specific_path_is_the_root() -> None:
    path = {"pathType": "ImplementationSpecific", "backend": WEB}
    result = decoded({"spec": {"rules": [{"http": {"paths": [path, {**path, "path": "/a"}]}}, {"host": "a.test"}]}})
    assert [http_path.path for http_path in result.object.spec.rules[0].http.paths] == ["/", "/a"]
    assert result.object.spec.rules[1].host == "a.test"


def test_all_faults_are_reported_in_the_order_of_the_document() -> None:
    spec = {
        "ingressClassName": "A",
        "defaultBackend": {},
        "tls": [{"hosts": ["B"], "secretName": "C"}],
        "rules": [
            {"host": "D", "http": {"paths": [{"path": "/\n//", "pathType": "Exact", "backend": {}}, {"backend": WEB}]}}
        ],
    }
    rejected = decoded({"metadata": {**NAME, "annotations": {"e f": "g"}}, "spec": spec})
    assert isinstance(rejected, Rejected)
    assert [fault.path for fault in rejected.faults] == [
        "metadata.annotations",
        "spec.ingressClassName",
        "spec.defaultBackend",
        "spec.tls[0].hosts[0]",
        "spec.tls[0].secretName",
        "spec.rules[0].host",
        "spec.rules[0].http.paths[0].path",
        "spec.rules[0].http.paths[0].path",
        "spec.rules[0].http.paths[0].backend",
        "spec.rules[0].http.paths[1].pathType",
    ]


def test_annotations_may_have_any_value_up_to_a_size() -> None:
    key = "nginx.ingress.kubernetes.io/auth-snippet"
    values = ["", "a\nb", "\0", '";}', "ä" * 1000, "x" * ((256 << 10) - len(key))]
    for value in values:
        result = decoded({"metadata": {**NAME, "annotations": {key: value}}, "spec": {"defaultBackend": WEB}})
        assert result.object.metadata.annotations == {key: value}
    annotations = {key: values[-1] + "x"}
    result = decoded({"metadata": {**NAME, "annotations": annotations}, "spec": {"defaultBackend": WEB}})
    assert result.faults[0].message == "262145 bytes in all, more than 262144"
    half = check(Ingress(metadata=ObjectMeta(name="a", annotations={key: "\udfff"}), spec=typed("/").spec), "x")
    assert isinstance(half, Rejected)
    assert half.lines() == (f"Ingress default/a: metadata.annotations.{key}: is not Unicode text",)


@pytest.mark.parametrize(
    "key", ["a", "A.b_c-D", "example.com/a", "Example.COM/a.b", "a" * 63, "b" * 253 + "/" + "a" * 63]
)
def test_keys_of_annotations(key: str) -> None:
    assert isinstance(
        decoded({"metadata": {**NAME, "annotations": {key: ""}}, "spec": {"defaultBackend": WEB}}), Decoded
    )


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "a/",
        "/a",
        "a/b/c",
        "-a",
        "a_",
        "a b",
        "a\n",
        "a" * 64,
        "a_b/c",
        "b" * 254 + "/a",
        "ä",
        "a;",
        "x" * 9999,
    ],
)
def test_invalid_keys_of_annotations(key: str) -> None:
    rejected = decoded({"metadata": {**NAME, "annotations": {key: ""}}, "spec": {"defaultBackend": WEB}})
    assert [fault.path for fault in rejected.faults] == ["metadata.annotations"]


@pytest.mark.parametrize("controller", ["rulegen.io/ingress", "k8s.io/ingress-nginx", "a/b/c", "a.b/~x%20"])
def test_controllers(controller: str) -> None:
    ingress_class = decoded(
        {"metadata": {"name": "a", "namespace": "ignored"}, "spec": {"controller": controller}}, "IngressClass"
    )
    assert ingress_class.object.spec.controller == controller
    assert ingress_class.object.metadata.namespace == ""


@given(st.text() | st.text("/.%2fF a{};\n\\\"'", max_size=12), st.sampled_from(PATH_TYPES))
def test_a_valid_path_is_one_line_of_text(path: str, path_type: str) -> None:
    result = check(typed(path, path_type), "x")
    if isinstance(result, Rejected):
        assert all(line.isprintable() for line in result.lines())
        return
    assert isinstance(result.object, Ingress)
    http = result.object.spec.rules[0].http
    assert http is not None
    kept = http.paths[0].path
    assert kept == (path or "/")
    assert kept.startswith("/")
    assert len(kept.encode()) <= MAX_PATH_BYTES
    assert not any(ord(character) < 32 or ord(character) == 127 for character in kept)


@given(st.text(max_size=300) | st.from_regex(r"\A(\*\.)?[a-z0-9.-]{1,260}\Z"))
def test_a_valid_host_is_a_dns_name(host: str) -> None:
    if is_host(host):
        assert set(host) <= set("*abcdefghijklmnopqrstuvwxyz0123456789-.")
        assert all(label and label.strip("-") == label for label in host.removeprefix("*.").split("."))
        assert len(host) <= 253
