"""`rulegen plan --ingress` and `export --nginx` without a live nginx: what people, machines and nginx itself get."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec import convert

from rulegen.cli.engines.nginx.program import PLACEHOLDER_NGINX, ChosenNginx
from rulegen.cli.main import main
from rulegen.cli.options.common import CliOptions
from rulegen.cli.options.ingress import ChosenIngress
from rulegen.cli.wiring import ingress as wiring
from rulegen.cli.wiring.inputs import Inputs
from rulegen.errors import HostError
from rulegen.host.proxy.disk import default_certificate
from rulegen.host.proxy.disk.last_read import StoredObjects
from rulegen.host.proxy.resolver import control
from rulegen.kube.objects.names import ObjectKey
from rulegen.kube.objects.structs import Secret
from rulegen.kube.snapshot.build import build_world
from rulegen.kube.validation.validate import check
from rulegen.model.host.facts import HostFacts, Interface
from rulegen.net import Family, parse_address
from tests.fakes.faults import Fault
from tests.rights import SANDBOX, needs_nginx, needs_sandbox
from tests.servers.fakeapi import FakeApi

PREFIX = "nginx.ingress.kubernetes.io"
HOST = """\
host:
  hostname: node1
  interfaces: [{name: eth0, addresses: [192.168.50.10/24]}]
"""


def ingress(name: str, host: str, secret: str = "", **annotations: str) -> dict:
    spec = {
        "ingressClassName": "rulegen",
        "rules": [{"host": host, "http": {"paths": [path("/")]}}],
    }
    if secret:
        spec["tls"] = [{"hosts": [host], "secretName": secret}]
    metadata = {
        "name": name,
        "namespace": "demo",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "annotations": {f"{PREFIX}/{key.replace('_', '-')}": value for key, value in annotations.items()},
    }
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec}


def path(text: str) -> dict:
    backend = {"service": {"name": "blog", "port": {"number": 8080}}}
    return {"path": text, "pathType": "Prefix", "backend": backend}


def pem(name: str) -> tuple[bytes, bytes]:
    """A certificate that is for one name, and its key."""
    made = default_certificate.make(name)
    start = made.index(b"-----BEGIN PRIVATE KEY")
    return made[:start], made[start:]


def secret(name: str, **content: bytes) -> dict:
    data = {key.replace("_", "."): base64.b64encode(value).decode() for key, value in content.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "demo"}, "data": data}


def world(*more: dict) -> list[dict]:
    metadata = {"name": "blog", "namespace": "demo"}
    ports = [{"name": "http", "port": 8080, "targetPort": 80}]
    labels = {"kubernetes.io/service-name": "blog"}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"clusterIP": "10.96.0.9", "ports": ports},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "blog-1", "namespace": "demo", "labels": labels},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 80}],
            "endpoints": [{"addresses": ["10.244.1.1"]}],
        },
        *more,
    ]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("host").write_text(HOST)

    def call(*arguments: str, objects: list[dict] | None = None) -> tuple[int, str, str]:
        given = []
        if objects is not None:
            Path("objects.yaml").write_text(yaml.safe_dump_all(objects))
            given = ["-f", "objects.yaml"]
        with pytest.raises(SystemExit) as stop:
            main([*arguments, *given])
        printed = capsys.readouterr()
        return stop.value.code or 0, printed.out, printed.err

    return call


PLAN = ("plan", "--ingress", "-v", "--observed", "none", "--host", "host")


def test_a_plan_shows_hosts_and_what_is_not_served_as_written(run):
    objects = world(
        ingress("blog", "blog.example.com"),
        ingress("shut", "shut.example.com", auth_type="basic", auth_secret="none"),
        ingress("odd", "odd.example.com", proxy_read_timeout="soon"),
    )
    code, out, _ = run(*PLAN, objects=objects)
    assert code == 0
    assert "+ host blog.example.com" in out
    assert "proxy_pass http://demo.blog.8080;" in out
    assert "Ingress demo/shut (closed): " in out
    assert "Secret demo/none does not exist" in out
    assert 'Ingress demo/odd (ignored): metadata.annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"]' in out


def test_a_plan_for_machines_has_hosts_reasons_and_the_reload(run):
    code, out, _ = run(
        *PLAN, "--detailed-exitcode", "-o", "json", objects=world(ingress("blog", "b.test", enable_cors="perhaps"))
    )
    document = json.loads(out)
    assert code == 2
    assert {"host", "upstream"} <= {change["kind"] for change in document["changes"] if change["language"] == "nginx"}
    assert document["ingress"]["observed"]
    assert document["ingress"]["reload"] is True
    (reason,) = document["ingress"]["reasons"]
    assert (reason["ingress"], reason["verdict"]) == ("demo/blog", "ignored")


def test_no_byte_of_a_secret_is_shown(run):
    chain, key = pem("blog.example.com")
    objects = world(
        ingress("blog", "blog.example.com", "tls", auth_type="basic", auth_secret="users"),
        secret("tls", tls_crt=chain, tls_key=key),
        secret("users", auth=b"foo:$apr1$SECRETSA$hashhashhash\n"),
    )
    for output in ("text", "json"):
        code, out, err = run(*PLAN, "-o", output, objects=objects)
        assert code == 0
        for line in (*key.decode().splitlines()[1:3], *chain.decode().splitlines()[1:3], "SECRETSA"):
            assert line not in out + err
        assert "its content is not shown" in out


def test_without_ingress_nothing_is_said_of_nginx(run):
    code, out, _ = run("plan", "--observed", "none", "--host", "host", objects=world(ingress("blog", "b.test")))
    assert code == 0
    assert "nginx" not in out


@needs_nginx
@pytest.mark.parametrize("flags", [(), ("--with-secrets",)])
def test_plain_nginx_takes_an_export(run, tmp_path: Path, flags: tuple[str, ...]):
    chain, key = pem("blog.example.com")
    objects = world(
        ingress("blog", "blog.example.com", "tls", auth_type="basic", auth_secret="users"),
        secret("tls", tls_crt=chain, tls_key=key),
        secret("users", auth=b"foo:$apr1$SECRETSA$hashhashhash\n"),
    )
    code, out, _ = run("export", "--nginx", "site", "--host", "host", *flags, objects=objects)
    assert code == 0
    assert "nginx -t -p site -c nginx.conf" in out
    tried = subprocess.run(
        [*SANDBOX, "nginx", "-t", "-p", tmp_path / "site", "-c", "nginx.conf"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert tried.returncode == 0, tried.stderr
    written = b"".join(file.read_bytes() for file in Path("site/secrets").iterdir())
    assert (key in written) is bool(flags)
    assert (b"SECRETSA" in written) is bool(flags)
    assert {file.stat().st_mode & 0o777 for file in Path("site/secrets").iterdir()} == {0o600}


def test_an_export_tells_where_each_location_comes_from(run):
    run("export", "--nginx", "site", "--host", "host", objects=world(ingress("blog", "blog.example.com")))
    document = json.loads(Path("site/provenance.json").read_text())
    (location,) = [entry for entry in document["locations"] if entry["ingress"]]
    assert (location["server"], location["ingress"], location["rule"]) == (
        "blog.example.com",
        "demo/blog",
        "spec.rules[0].http.paths[0]",
    )
    assert f"server_name {location['server']};" in Path("site", location["file"]).read_text()


def test_the_next_export_removes_only_hosts_that_are_gone(run):
    run("export", "--nginx", "site", "--host", "host", objects=world(ingress("a", "a.test"), ingress("b", "b.test")))
    Path("site/hosts/notes.txt").write_text("mine")
    before = {file.name for file in Path("site/hosts").iterdir()}
    run("export", "--nginx", "site", "--host", "host", objects=world(ingress("a", "a.test")))
    after = {file.name for file in Path("site/hosts").iterdir()}
    assert len(before - after) == 1
    assert "notes.txt" in after


def test_user_templates_are_used_and_a_broken_one_is_one_line(run, tmp_path: Path):
    shutil.copytree(Path(__file__).parents[3] / "nginx_templates", tmp_path / "own")
    template = tmp_path / "own" / "nginx.conf.j2"
    template.write_text(template.read_text().replace("tcp_nodelay on;", "tcp_nodelay off;"))
    objects = world(ingress("blog", "b.test"))
    code, _, _ = run("export", "--nginx", "site", "--host", "host", "--nginx-templates", "own", objects=objects)
    assert code == 0
    assert "tcp_nodelay off;" in Path("site/nginx.conf").read_text()
    template.write_text("{{ main")
    code, _, err = run("export", "--nginx", "site", "--host", "host", "--nginx-templates", "own", objects=objects)
    assert code == 1
    assert err.startswith("Error: nginx.conf.j2:1: ")


def test_only_secrets_that_ingresses_name_are_requested(run, tmp_path: Path):
    chain, key = pem("blog.example.com")
    objects = world(ingress("blog", "blog.example.com", "tls"))
    with FakeApi() as api:
        api.put("services", objects[0])
        api.put("endpointslices", objects[1])
        api.put("ingresses", objects[2])
        api.put("secrets", secret("tls", tls_crt=chain, tls_key=key), secret("other", auth=b"x:y"))
        code, out, _ = run(*PLAN, "--kubeconfig", api.kubeconfig(tmp_path))
        asked = [path for path, _ in api.requests if "secrets" in path]
    assert code == 0
    assert "ssl_certificate secrets/" in out
    assert asked == ["/api/v1/namespaces/demo/secrets/tls"]


SETTINGS = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "settings", "namespace": "demo"},
    "data": {"whitelist-source-range": "10.0.0.0/8"},
}
APPLY = ("apply", "--ingress", "--no-services", "--yes", "--nginx-dir", "nginx", "--host", "host")


class TestWhatIsNamedAndNotThere:
    """What keeps somebody out is in it: without it nothing is planned, applied or exported."""

    @pytest.mark.parametrize("command", [PLAN, ("plan", "--ingress", "--no-services", "--nginx-dir", "nginx"), APPLY])
    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ("--configmap", "ConfigMap demo/setings, which --configmap refers to, does not exist"),
            (
                "--default-ssl-certificate",
                "Secret demo/setings, which --default-ssl-certificate refers to, does not exist",
            ),
        ],
    )
    @pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed")
    def test_among_files_it_is_an_error(self, run, command, option, message):
        code, out, err = run(*command, option, "demo/setings", objects=world(ingress("blog", "b.test"), SETTINGS))
        assert (code, out) == (1, "")
        assert message in err
        assert "Next: check its name" in err
        assert not Path("nginx", "current").exists()

    def test_nothing_is_exported_either(self, run):
        objects = world(ingress("blog", "b.test"), SETTINGS)
        code, _, err = run("export", "--nginx", "site", "--host", "host", "--configmap", "demo/no", objects=objects)
        assert code == 1
        assert "ConfigMap demo/no, which --configmap refers to, does not exist" in err
        assert not Path("site").exists()

    def test_one_that_has_a_fault_is_an_error_that_tells_it(self, run):
        broken = {**SETTINGS, "data": {"whitelist-source-range": 7}}
        objects = world(ingress("blog", "b.test"), broken)
        code, _, err = run(*PLAN, "--configmap", "demo/settings", objects=objects)
        assert code == 1
        assert "ConfigMap demo/settings" in err
        assert "does not exist" not in err

    @pytest.mark.parametrize(
        ("fault", "message"),
        [(None, "does not exist"), (Fault.status(403, "no"), "the API server denies access to it")],
        ids=["absent", "forbidden"],
    )
    def test_of_an_api_server_too(self, run, tmp_path, fault, message):
        with FakeApi() as api:
            for noun, item in zip(
                ("services", "endpointslices", "ingresses"), world(ingress("blog", "b.test")), strict=True
            ):
                api.put(noun, item)
            if fault is not None:
                api.put("configmaps", SETTINGS)
                api.fail("configmaps", *[fault] * 3)
            config = api.kubeconfig(tmp_path)
            code, out, err = run(*PLAN, "--kubeconfig", config, "--configmap", "demo/settings")
        assert (code, out) == (1, "")
        assert f"ConfigMap demo/settings, which --configmap refers to{':' if fault else ','} {message}" in err

    def test_a_denied_secret_is_not_called_absent_and_opens_nothing(self, run, tmp_path):
        users = ingress("blog", "b.test", auth_type="basic", auth_secret="users")
        with FakeApi() as api:
            objects = world(users, ingress("cert", "c.test", "tls"))
            for noun, item in zip(("services", "endpointslices", "ingresses", "ingresses"), objects, strict=True):
                api.put(noun, item)
            api.fail("secrets", *[Fault.status(403, "no")] * 2)
            code, out, _ = run(*PLAN, "--kubeconfig", api.kubeconfig(tmp_path))
        assert code == 0
        assert "does not exist" not in out
        assert "default certificate" not in out
        assert out.count("the API server denies access to it") == 2
        assert "return 503" in out
        assert "ssl_reject_handshake on;" in out


@pytest.mark.parametrize("command", [("export", "--nginx", "site"), PLAN])
@pytest.mark.parametrize(("ipv6", "listens"), [("false", False), ("true", True)])
def test_nginx_listens_on_ipv6_only_where_the_host_has_it(run, command, ipv6, listens):
    Path("host").write_text(f"{HOST}  ipv6: {ipv6}\n")
    files = () if command is PLAN else ("--host", "host")
    code, out, _ = run(*command, *files, objects=world(ingress("blog", "blog.example.com")))
    assert code == 0
    text = out if command is PLAN else "".join(file.read_text() for file in Path("site").rglob("*.conf"))
    assert "listen 80" in text
    assert ("listen [::]:80" in text) is listens


@pytest.mark.parametrize(
    ("of_facts", "of_this_kernel", "listens"), [(True, True, True), (False, True, False), (True, False, False)]
)
def test_nginx_listens_on_ipv6_only_if_facts_and_kernel_have_it(monkeypatch, of_facts, of_this_kernel, listens):
    """`apply --ingress` and `run --ingress` take their settings from here."""
    monkeypatch.setattr(wiring, "speaks_ipv6", lambda: of_this_kernel)
    chosen = ChosenIngress(ingress=True)
    inputs = Inputs(CliOptions(), ingress=chosen)
    inputs.__dict__["facts"] = HostFacts(ipv6=of_facts)  # in place of this machine's
    live = wiring.IngressInputs(chosen, inputs, is_live=True)
    assert live.options.host.ipv6 is listens


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
def test_only_an_agent_waits_for_a_missing_program(name, tmp_path):
    given = {f"{name}_dir": str(tmp_path), f"{name}_binary": str(tmp_path / "missing")}
    chosen = ChosenIngress(ingress=True, ingress_engine=name, engine_options={name: given})
    inputs = Inputs(CliOptions(), ingress=chosen)
    with pytest.raises(HostError, match="missing is not installed"):
        wiring.IngressInputs(chosen, inputs).engine  # noqa: B018 - the property fails
    live = wiring.IngressInputs(chosen, inputs, waits=True).engine
    assert not live.is_serving
    with pytest.raises(HostError, match="missing is not installed"):
        live.refresh()


@pytest.mark.parametrize(("user", "is_told"), [("nobody", True), ("rulegen-nginx", False)])
def test_a_user_of_other_programs_is_reported(user, is_told, monkeypatch):
    facts = replace(PLACEHOLDER_NGINX, user=user, group=user)
    monkeypatch.setattr("rulegen.cli.engines.nginx.program.gather_nginx", lambda *_, **__: facts)
    notes: list[str] = []

    assert ChosenNginx().facts(notes) == facts
    assert any("--nginx-user" in note for note in notes) is is_told


@pytest.mark.parametrize("is_given", [False, True], ids=["of-this-host", "from-a-file"])
def test_a_running_nginx_gets_the_present_dns_servers_and_ipv6(is_given, tmp_path, monkeypatch):
    """What a file says of the host holds; name servers that are gone for a moment stay."""
    host = str(tmp_path / "host.yaml") if is_given else None
    now: dict[str, Any] = {"ipv6": True, "resolvers": ("192.0.2.53",)}
    monkeypatch.setattr(wiring, "speaks_ipv6", lambda: now["ipv6"])
    monkeypatch.setattr(wiring, "resolvers", lambda: tuple(map(parse_address, now["resolvers"])))
    chosen = ChosenIngress(ingress=True, engine_options={"nginx": {"nginx_dir": str(tmp_path)}})
    facts = replace(PLACEHOLDER_NGINX, group="")
    monkeypatch.setattr("rulegen.cli.engines.nginx.program.gather_nginx", lambda *_, **__: facts)
    inputs = Inputs(CliOptions(host=host), ingress=chosen)
    inputs.__dict__["facts"] = HostFacts()  # in place of this machine's, or of a file's
    site = wiring.IngressInputs(chosen, inputs)
    live = site.engine
    live.refresh()
    assert (live.options.resolvers, live.options.host.ipv6) == (("192.0.2.53",), True)
    now |= {"ipv6": False, "resolvers": ()}
    assert live.refresh()
    assert (live.options.resolvers, live.options.host.ipv6) == (("192.0.2.53",), False)
    assert (Family.IPV6 in live.options.families) is is_given
    now["resolvers"] = ("198.51.100.53",)
    assert live.refresh()
    assert live.options.resolvers == ("198.51.100.53",)
    assert not live.refresh()
    with monkeypatch.context() as other:  # another user of the host would be asked
        other.setattr(control, "stranger", lambda _port: 1000)
        assert live.refresh()
        assert live.options.resolvers == ()
    assert live.refresh()
    assert live.options.resolvers == ("198.51.100.53",)
    own = parse_address("192.0.2.7")
    monkeypatch.setattr(wiring, "interfaces", lambda: (Interface("eth0", ((own, 24),)),))
    assert live.refresh() is not is_given
    assert (own in live.options.forbidden.own) is not is_given


@needs_sandbox
def test_an_object_that_is_denied_now_keeps_its_last_content(run, tmp_path):
    """Known from the agent, or the command, that served it."""
    chain, key = pem("c.test")
    objects = world(ingress("blog", "b.test", auth_type="basic", auth_secret="users"), ingress("cert", "c.test", "tls"))
    before = build_world(
        check(convert(item, Secret), "")
        for item in (secret("users", auth=b"u:{PLAIN}p\n"), secret("tls", tls_crt=chain, tls_key=key))
    )
    (tmp_path / "nginx").mkdir(mode=0o755)
    StoredObjects(tmp_path / "nginx").keep({ObjectKey("Secret", name): item for name, item in before.secrets.items()})
    with FakeApi() as api:
        for noun, item in zip(("services", "endpointslices", "ingresses", "ingresses"), objects, strict=True):
            api.put(noun, item)
        api.fail("secrets", *[Fault.status(403, "no")] * 2)
        live = ("plan", "--ingress", "--no-services", "-v", "--nginx-dir", "nginx", "--host", "host")
        code, out, err = run(*live, "--kubeconfig", api.kubeconfig(tmp_path))
    assert code == 0, err
    assert "auth_basic_user_file secrets/" in out
    assert "ssl_certificate secrets/" in out
    assert "ssl_reject_handshake" not in out
    assert out.count("the API server denies access to it: its last known content stays in use") == 2
