"""What a newcomer gives by mistake leads to the next step: other files, other forms of them, unquoted patterns."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path

import pytest

from tests.cli.test_plan import BLOG, folder, run  # noqa: F401 - fixtures
from tests.otheruser import NOBODY, as_user, reachable_folder
from tests.rights import needs_root

NONE = ("--observed", "none", "--host", "host", "--cluster-cidr", "10.244.0.0/16")
CONFIGURATION = """\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clusterCIDR: 10.99.0.0/16
"""
CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kube-proxy, namespace: kube-system}\ndata:\n"
TABLE = "NAMESPACE   NAME   TYPE   CLUSTER-IP   PORT(S)\ndefault   web   ClusterIP   10.96.0.1   80/TCP\n"


def indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


def test_a_configuration_is_read_from_the_config_map_around_it(run):  # noqa: F811 - the fixture
    Path("alone").write_text(CONFIGURATION)
    Path("config-map").write_text(f"{CONFIG_MAP}  config.conf: |\n{indented(CONFIGURATION)}")
    alone, inside = (
        run("plan", "-f", "blog.yaml", *NONE[:4], "--config", name, "-v")[1] for name in ("alone", "config-map")
    )
    assert inside.replace("config-map", "alone") == alone
    assert "10.99.0.0/16" in alone


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("  other: x\n", "this ConfigMap has no text with the key config.conf"),
        ("  config.conf: |\n    kind: Pod\n    apiVersion: v1\n", "data[config.conf]: expected kubeproxy.config"),
        ("  config.conf: ''\n", "data[config.conf]: it is empty"),
        ("  config.conf: '{clusterCIDR: ['\n", "data[config.conf]: line 2: not YAML"),
    ],
)
def test_a_config_map_without_a_configuration_is_an_error(run, content, message):  # noqa: F811 - the fixture
    Path("config-map").write_text(CONFIG_MAP + content)
    code, out, err = run("plan", "-f", "blog.yaml", *NONE, "--config", "config-map")
    assert (code, out) == (1, "")
    assert message in err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--nodeport-addresses", "foo"),
        ("--cluster-cidr", "foo"),
        ("--bind-address", "foo"),
        ("--ipvs-scheduler", "foo"),
        ("--ipvs-exclude-cidrs", "foo"),
    ],
)
def test_an_error_about_an_option_names_the_option(run, option, value):  # noqa: F811 - the fixture
    code, out, err = run("plan", "-f", "blog.yaml", *NONE[:4], "--mode", "ipvs", option, value)
    assert (code, out) == (1, "")
    assert err.startswith(f"Error: {option}: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty; objects of a cluster: `kubectl get"),
        (TABLE, "a table that kubectl prints for people; -o yaml"),
    ],
    ids=["empty", "table"],
)
def test_no_objects_on_standard_input_lead_to_kubectl(run, monkeypatch, text, message):  # noqa: F811 - the fixture
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    code, out, err = run("plan", "-f", "-", *NONE)
    assert (code, out) == (1, "")
    assert message in err.splitlines()[-1]


def test_a_pattern_without_quotes_leads_to_f(run):  # noqa: F811 - the fixture
    Path("more.yaml").write_text(BLOG)
    code, out, err = run("plan", "-f", "blog.yaml", "more.yaml", *NONE)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("Next: a path needs an -f of its own; quote a pattern")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("plan", "blog.yaml"), "blog.yaml is a path, not the name of a Service\nNext: a path needs an -f of its own"),
        (
            ("apply", "blog.yaml"),
            "blog.yaml: it is not a saved plan of this version\nNext: save one with `rulegen plan",
        ),
        (("show", "-f", "blog.yaml"), "Next: `rulegen show PATH...` takes the paths of dumps without an option"),
        (
            ("plan", "--observed", "none", "-f", "https://example.com/a.yaml"),
            "Next: only files are read: `curl -fsSL URL | rulegen plan",
        ),
    ],
)
def test_a_path_in_the_wrong_place_leads_to_the_right_one(run, words, message):  # noqa: F811 - the fixture
    code, out, err = run(*words)
    assert (code, out) == (1, "")
    assert message in err


def test_a_compressed_file_is_read(run):  # noqa: F811 - the fixture
    Path("blog.yaml.gz").write_bytes(gzip.compress(BLOG.encode()))
    plans = [run("plan", "-f", name, *NONE) for name in ("blog.yaml", "blog.yaml.gz")]
    assert plans[0] == plans[1]
    assert plans[0][0] == 0


NO_MAPPING = "expected a mapping with clusters, contexts and users"
KUBECONFIG = {
    "clusters": "[{name: c, cluster: {server: 'https://127.0.0.1:1'}}]",
    "contexts": "[{name: home, context: {cluster: c, user: u}}]",
    "users": "[{name: u, user: {token: t0psecret}}]",
    "current-context": "home",
}


def kubeconfig(**changed: str | None) -> str:
    fields = KUBECONFIG | {name.replace("_", "-"): value for name, value in changed.items()}
    return "".join(f"{name}: {value}\n" for name, value in fields.items() if value is not None)


@pytest.mark.parametrize(
    ("content", "message", "step"),
    [
        ("just a text\n", NO_MAPPING, "kubectl config view"),
        ("[a, b]\n", NO_MAPPING, "kubectl config view"),
        ("42\n", NO_MAPPING, "kubectl config view"),
        ("[" * 5000, NO_MAPPING, "kubectl config view"),
        ("", "it is empty", "kubectl config view"),
        ("# nothing\n", "it is empty", "kubectl config view"),
        ("kind: [\n", "line 2: not YAML: ", "kubectl config view"),
        (f"{kubeconfig()}---\n{kubeconfig()}", "line 5: not YAML: ", "kubectl config view"),
        (b"\xff\xfe\x00", "it is not text in UTF-8", "--kubeconfig"),
        ("apiVersion: v1\nkind: Pod\n", "it is a Pod, not a kubeconfig", "--kubeconfig"),
        (kubeconfig(current_context="work"), "there is no context work", "--context NAME selects one of: home"),
        (kubeconfig(current_context=None), "it has no current-context", "--context NAME selects one of: home"),
        (kubeconfig(contexts=None), "there is no context home", "kubectl config view"),
        (kubeconfig(clusters="[]"), "context home: there is no cluster c", "--context NAME"),
        (kubeconfig(clusters="{c: {}}"), "clusters: expected a list", "kubectl config view"),
        (kubeconfig(users="[u]"), "users[0]: expected a mapping with name and user", "kubectl config view"),
        (kubeconfig(users="[{name: v, user: {}}]"), "context home: there is no user u; users: v", "--context NAME"),
        (kubeconfig(users="[{name: u, user: t0psecret}]"), "user u: expected a mapping", "kubectl config view"),
        (
            kubeconfig(users="[{name: u, user: {tokenFile: t.txt}}]"),
            "tokenFile: t.txt: no such file",
            "kubectl config view",
        ),
        (
            kubeconfig(users="[{name: u, user: {client-certificate: c.pem}}]"),
            "client-certificate: c.pem: no such file",
            "kubectl config view",
        ),
        (
            kubeconfig(clusters="[{name: c, cluster: {server: 'https://[::1]:1', certificate-authority: a.pem}}]"),
            "certificate-authority: a.pem: no such file",
            "kubectl config view",
        ),
        (
            kubeconfig(clusters="[{name: c, cluster: {server: 'ftp://127.0.0.1'}}]"),
            "server 'ftp://127.0.0.1' is not a URL such as https://10.0.0.1:6443",
            "kubectl config view",
        ),
    ],
)
def test_what_is_no_kubeconfig_leads_to_the_next_step(run, content, message, step):  # noqa: F811 - the fixture
    Path("kubeconfig").write_bytes(content if isinstance(content, bytes) else content.encode())
    code, out, err = run("plan", "--kubeconfig", "kubeconfig", *NONE)
    assert (code, out) == (1, "")
    first, second = err.splitlines()
    assert first.startswith(f"Error: kubeconfig kubeconfig: {message}")
    assert second.startswith("Next: ")
    assert step in second
    assert "t0psecret" not in err


def test_a_context_that_was_mistyped_is_named_with_those_there_are(run):  # noqa: F811 - the fixture
    Path("kubeconfig").write_text(kubeconfig())
    code, out, err = run("plan", "--kubeconfig", "kubeconfig", "--context", "hoem", *NONE, "-o", "json")
    document = json.loads(err)
    assert (code, out, document["exitCode"]) == (1, "", 1)
    assert document["message"] == "kubeconfig kubeconfig: there is no context hoem"
    assert document["hint"] == "--context NAME selects one of: home"


@needs_root
@pytest.mark.parametrize("closed", ["kubeconfig", "."], ids=["the file", "its folder"])
def test_a_kubeconfig_of_another_user_is_named(run, monkeypatch, closed):  # noqa: F811 - the fixture
    with reachable_folder() as place:
        (place / "kubeconfig").write_text(kubeconfig())
        (place / closed).chmod(0)
        monkeypatch.setenv("KUBECONFIG", str(place / "kubeconfig"))
        code, out, err = as_user(NOBODY, lambda: run("plan", *NONE[:2]))  # type: ignore[misc]
    assert (code, out) == (1, "")
    assert err.startswith(f"Error: kubeconfig {place}/kubeconfig: Permission denied\nNext: ")


def test_q_shows_the_totals_alone(run):  # noqa: F811 - the fixture
    whole = run("plan", "-f", "blog.yaml", *NONE)[1].splitlines()
    code, out, _ = run("plan", "-f", "blog.yaml", *NONE, "-q")
    assert code == 0
    assert out.splitlines()[-2:] == whole[-2:]
    assert "demo/blog" not in out
    assert "Plan: " in out
    assert run("plan", "-f", "blog.yaml", *NONE, "-q", "-v")[2].startswith("Error: -q and -v exclude each other")
