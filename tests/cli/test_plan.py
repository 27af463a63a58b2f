"""`rulegen plan` and `export` from files alone: what people and machines get, and every error in one clear line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rulegen.cli.main import main

BLOG = """\
apiVersion: v1
kind: Service
metadata: {name: blog, namespace: demo, creationTimestamp: "2026-01-01T00:00:00Z"}
spec:
  type: NodePort
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10]
  ipFamilies: [IPv4]
  ports: [{name: http, port: 8080, targetPort: 80, nodePort: 32388}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: blog-1, namespace: demo, labels: {kubernetes.io/service-name: blog}}
addressType: IPv4
endpoints: [{addresses: [10.244.1.1]}, {addresses: [10.244.1.2]}]
ports: [{name: http, port: 80}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: blog, namespace: demo}
"""
HOST = """\
host:
  hostname: node1
  interfaces: [{name: eth0, addresses: [192.168.50.10/24]}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "blog.yaml").write_text(BLOG)
    (tmp_path / "host").write_text(HOST)
    return tmp_path


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(list(arguments))
        printed = capsys.readouterr()
        return stop.value.code or 0, printed.out, printed.err

    return call


OFFLINE = ("--host", "host")


def test_a_plan_for_an_empty_node_shows_each_rule_with_reason(run):
    code, out, err = run("plan", "-f", "blog.yaml", *OFFLINE, "--observed", "none", "-v")
    assert (code, err) == (0, "")
    assert "Service demo/blog (NodePort; endpoints from EndpointSlice)" in out
    assert "-d 10.96.0.10/32 -p tcp -m tcp --dport 8080 -j KUBE-SVC-" in out
    assert "# demo/blog:http to 10.244.1.2:80" in out
    assert "Ignored kinds: 1 apps/v1 Deployment" in out
    assert out.splitlines()[-1].startswith("Plan: ")
    assert out.splitlines()[-1].endswith(" to add, 0 to change, 0 to delete.")


def test_exit_codes_tell_changes_from_none_and_from_errors(run):
    assert run("plan", "-f", "blog.yaml", *OFFLINE, "--observed", "none", "--detailed-exitcode")[0] == 2
    assert run("export", "-f", "blog.yaml", *OFFLINE, "-o", "out")[0] == 0
    assert run("plan", "-f", "blog.yaml", *OFFLINE, "--observed", "out", "--detailed-exitcode")[0] == 0
    assert run("plan", "-f", "nowhere.yaml", *OFFLINE, "--observed", "none", "--detailed-exitcode")[0] == 1
    assert run("plan", "--no-such-option")[0] == 1


def test_an_export_needs_no_changes_and_has_the_same_bytes(run, folder):
    run("export", "-f", "blog.yaml", *OFFLINE, "-o", "one")
    run("export", "-f", "blog.yaml", *OFFLINE, "-o", "two")
    names = sorted(path.name for path in (folder / "one").iterdir())
    assert names == ["ip6tables.save", "iptables.save", "model.json", "sysctl.conf"]
    assert all((folder / "one" / name).read_bytes() == (folder / "two" / name).read_bytes() for name in names)
    model = json.loads((folder / "one" / "model.json").read_text())
    assert [service["name"] for service in model["services"]] == ["demo/blog"]
    assert model["services"][0]["ports"][0]["internal"] == "cluster"


def test_json_is_for_machines(run):
    code, out, _ = run("plan", "-f", "blog.yaml", *OFFLINE, "--observed", "none", "-o", "json")
    document = json.loads(out)
    assert (code, document["schemaVersion"], document["kind"], document["node"]) == (0, 1, "Plan", "node1")
    assert document["summary"]["add"] == len(document["changes"])
    assert document["services"]["demo/blog"]["endpointsFrom"] == "EndpointSlice"
    assert {change["service"] for change in document["changes"]} == {None, "demo/blog"}


def test_an_invalid_object_is_reported_and_the_rest_served(run, folder):
    bad = (
        BLOG.replace("name: blog, namespace", "name: bad, namespace")
        .replace("port: 8080", "port: 70000")
        .replace("32388", "-1")
    )
    (folder / "bad.yaml").write_text(bad.split("---")[0])
    code, out, _ = run("plan", "-f", "blog.yaml", "-f", "bad.yaml", *OFFLINE, "--observed", "none")
    assert code == 0
    assert "Service demo/bad: spec.ports[0].port: 70000 is not a port (1–65535)" in out
    assert "Service demo/bad: spec.ports[0].nodePort" in out
    assert "Service demo/blog (NodePort" in out
    code, out, err = run("plan", "-f", "blog.yaml", "-f", "bad.yaml", *OFFLINE, "--observed", "none", "--strict")
    assert (code, out) == (1, "")
    assert "Service demo/bad: spec.ports[0].port: 70000" in err
    assert "Next: " in err


def test_a_preview_assigns_what_manifests_lack_and_says_so(run, folder):
    bare = BLOG.replace("  clusterIP: 10.96.0.10\n  clusterIPs: [10.96.0.10]\n", "").replace(", nodePort: 32388", "")
    (folder / "bare.yaml").write_text(bare)
    outputs = [
        run("plan", "-f", "bare.yaml", *OFFLINE, "--observed", "none", "--service-cidr", "10.200.0.0/16", *words)
        for words in ((), ("-v",), ("-v",))
    ]
    assert outputs[1] == outputs[2]
    assert "endpoints, assigned for preview: " in outputs.pop(0)[1]
    assert "assigned for preview: " in outputs[0][1]
    assert "-d 10.200." in outputs[0][1]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("-f", "nowhere.yaml"), "nowhere.yaml"),
        (("-f", "blog.yaml", "--mode", "ipvz"), "mode"),
        (("-f", "blog.yaml", "--cluster-cidr", "10.0.0.0/99"), "10.0.0.0/99"),
        (("-f", "blog.yaml", "--config", "host"), "KubeProxyConfiguration"),
        (("-f", "blog.yaml", "--config", "nowhere"), "nowhere"),
        (("-f", "blog.yaml", "--observed", "host"), "not a dump"),
        (("-f", "blog.yaml", "--observed", "nowhere"), "nowhere"),
        (("-f", "blog.yaml", "--observed", "none", "--observed", "host"), "cannot be combined"),
        (("-f", "blog.yaml", "--service-cidr", "x"), "'x' is not a CIDR"),
        (("-f", "blog.yaml", "--node-port-range", "9-1"), "'9-1' is not a range"),
    ],
)
def test_errors_are_one_clear_line(run, arguments, error):
    observed = () if "--observed" in arguments else ("--observed", "none")
    code, out, err = run("plan", *arguments, *OFFLINE, *observed)
    assert (code, out) == (1, "")
    assert error in err
    assert "Traceback" not in err


def test_flags_override_fields_and_unknown_fields_are_named(run, folder):
    (folder / "config").write_text(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nclusterCIDR: 10.0.0.0/8\n"
        "iptables: {masqueradeBit: 3, colour: red}\nsmell: good\n"
    )
    _, out, _ = run("plan", "-f", "blog.yaml", *OFFLINE, "--observed", "none", "--config", "config", "-v")
    assert "! -s 10.0.0.0/8" in out
    assert "0x8/0x8" in out
    assert "config: iptables.colour is not a field of a KubeProxyConfiguration" in out
    assert "config: smell is not a field" in out
    _, out, _ = run(
        *("plan", "-f", "blog.yaml", *OFFLINE, "--observed", "none", "--config", "config"),
        *("--cluster-cidr", "10.244.0.0/16", "--iptables-masquerade-bit", "4", "-v"),
    )
    assert "! -s 10.244.0.0/16" in out
    assert "0x10/0x10" in out


def test_a_flag_that_cannot_be_used_is_no_fault_of_the_file(run, folder):
    (folder / "config").write_text("{apiVersion: kubeproxy.config.k8s.io/v1alpha1, kind: KubeProxyConfiguration}\n")
    _, _, err = run("plan", "-f", "blog.yaml", *OFFLINE, "--observed", "none", "--config", "config", "--mode", "foo")
    modes = "'iptables', 'ipvs', 'nftables', 'userspace'"
    assert err.splitlines()[-1] == f"Error: Invalid value for '--mode': 'foo' is not one of {modes}."
    assert "config" not in err


def test_files_and_an_api_server_together_cause_a_warning(run):
    _, out, _ = run("plan", "-f", "blog.yaml", *OFFLINE, "--observed", "none", "--context", "prod")
    assert "not from an API server" in out


def test_an_unobserved_family_is_reported_and_not_planned(run):
    run("export", "-f", "blog.yaml", *OFFLINE, "-o", "out")
    code, out, _ = run("plan", "-f", "blog.yaml", *OFFLINE, "--observed", "out/iptables.save", "--detailed-exitcode")
    assert code == 0
    assert "IPv6 was not observed, so it is not in the plan" in out


def test_hostile_text_reaches_no_terminal(run, folder):
    rule = '-A KUBE-SERVICES -m comment --comment "\x1b[2J\x07" -s 192.0.2.1/32 -j ACCEPT'
    dump = f"*nat\n:KUBE-SERVICES - [0:0]\n{rule}\nCOMMIT\n"
    (folder / "dump").write_text(dump)
    _, out, _ = run("plan", "-f", "blog.yaml", *OFFLINE, "--observed", "dump")
    assert "192.0.2.1" in out
    assert "\x1b" not in out
    assert "\x07" not in out


@pytest.mark.parametrize("command", ["plan", "apply", "export", "cleanup", "doctor", "demo"])
def test_help_has_examples_one_on_a_line(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert "\b" not in out
    assert "\\b" not in out
    assert [line for line in out.splitlines() if line.strip().startswith(f"rulegen {command}")]


INGRESS = """\
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: NAME, namespace: demo}
spec:
  rules:
  - host: NAME.example.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: blog, port: {number: 8080}}}}]}
"""


@pytest.mark.parametrize("command", ["plan", "export", "plan-json"])
@pytest.mark.parametrize("names", [("site",), ("site", "shop")])
def test_ignored_ingresses_in_files_are_named_with_the_flag(run, folder, command, names):
    (folder / "ingress.yaml").write_text("---\n".join(INGRESS.replace("NAME", name) for name in names))
    arguments = {
        "plan": ["plan", "--observed", "none"],
        "export": ["export", "-o", "out"],
        "plan-json": ["plan", "--observed", "none", "-o", "json"],
    }
    code, out, err = run(*arguments[command], "-f", "blog.yaml", "-f", "ingress.yaml", "--host", "host")
    listed = ", ".join(f"demo/{name}" for name in sorted(names))
    assert code == 0
    assert f"{len(names)} Ingress{'es are' if len(names) > 1 else ' is'} ignored: {listed}; add --ingress " in out + err


def test_ingresses_that_were_asked_for_are_not_called_ignored(run, folder):
    (folder / "ingress.yaml").write_text(INGRESS.replace("NAME", "site"))
    files = ("-f", "blog.yaml", "-f", "ingress.yaml", "--host", "host")
    assert "ignored:" not in run("plan", "--ingress", "--observed", "none", *files)[1]


def test_a_kustomization_is_planned_with_a_warning(run, folder):
    (folder / "app").mkdir()
    (folder / "app" / "kustomization.yaml").write_text("resources: [blog.yaml]\n")
    (folder / "blog.yaml").rename(folder / "app" / "blog.yaml")
    code, out, _ = run("plan", "-f", "app", "--observed", "none", "--host", "host")
    assert code == 0
    assert "kubectl kustomize app | rulegen plan -f -" in out
    assert "Skipped" not in out
    assert "Service demo/blog" in out


def test_of_a_dump_of_one_table_the_rest_is_said_to_be_unknown(run, folder):
    run("export", "-f", "blog.yaml", *OFFLINE, "-o", "out")
    text = (folder / "out" / "iptables.save").read_text()
    (folder / "nat").write_text("*nat\n" + text.partition("*nat\n")[2].partition("COMMIT\n")[0] + "COMMIT\n")
    code, out, _ = run("plan", "-f", "blog.yaml", *OFFLINE, "--observed", "nat", "--detailed-exitcode")
    assert code == 0
    assert "nat has no table filter and mangle: the node's state there is unknown and not in the plan" in out
    assert "No changes in what was observed." in out
    assert "The node matches the objects" not in out


@pytest.mark.parametrize("printed", ["options", "nothing"])
def test_unprintable_options_are_reported_as_of_a_newer_tool(run, folder, printed):
    run("export", "-f", "blog.yaml", *OFFLINE, "-o", "out")
    path = folder / "out" / "iptables.save"
    if printed == "options":
        path.write_text(path.read_text().replace("--dst-type LOCAL", "[unsupported revision]"))
    code, out, _ = run("plan", "-f", "blog.yaml", *OFFLINE, "--observed", "out", "--detailed-exitcode")
    assert code == 0
    assert ("a newer iptables wrote them" in out) is (printed == "options")
    assert "drift" not in out.lower()


def test_a_dump_may_come_on_stdin_but_not_with_the_objects(run, folder, monkeypatch):
    run("export", "-f", "blog.yaml", *OFFLINE, "-o", "out")
    for arguments, code, text in (
        (("-f", "blog.yaml"), 0, "No changes"),
        (("-f", "-"), 1, "standard input can hold objects or a dump, not both"),
    ):
        with (folder / "out" / "iptables.save").open() as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            ended = run("plan", *arguments, *OFFLINE, "--observed", "-", "--detailed-exitcode")
        assert ended[0] == code
        assert text in ended[1] + ended[2]
