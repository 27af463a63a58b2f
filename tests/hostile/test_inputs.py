"""No option, environment, configuration, host file or dump ends in a fault of rulegen: each gets a clear line."""

from __future__ import annotations

import gc
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rulegen.agent.agent import Agent
from rulegen.cli.main import cli, main
from rulegen.errors import HostError
from rulegen.kube.proxyconfig.configuration import API_VERSION, KIND, KubeProxyConfiguration
from tests.cli.test_plan import BLOG, HOST
from tests.sizes import examples

FUZZ = settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.differing_executors,
    ],
)
FEWER = settings(FUZZ, max_examples=examples(25))
"""For what another test tries besides."""
CODES = {0, 1, 2}
NODE = "---\n{apiVersion: v1, kind: Node, metadata: {name: node1}}\n"
PLAN = ("plan", "-f", "blog.yaml", "--host", "host", "--observed", "none")
BASES: dict[str, tuple[str, ...]] = {
    "plan": PLAN,
    "apply": ("apply", "-f", "blog.yaml", "--host", "host"),
    "export": ("export", "-f", "blog.yaml", "--host", "host", "-o", "out"),
    "run": ("run", "--kubeconfig", "kubeconfig", "--host", "host"),
    "cleanup": ("cleanup",),
    "doctor": ("doctor",),
}

WORDS = st.one_of(
    st.sampled_from(
        [
            *("", " ", ",", "-", "--", "-1", "0", "1", "80", "65535", "65536", "99999999999999999999", "1e999", "NaN"),
            *("٣", "²", "é", "\udcff", "😀", "\n", "\x1b[2J", "\u202e", "%s", "{}", "$HOME", "~", "~nobody-at-all/x"),
            *(
                "10.0.0.0/8",
                "10.0.0.0/33",
                "fd00::/56",
                "::/0",
                "10.0.0.1",
                "::1",
                "fe80::1%eth0",
                "::ffff:10.0.0.1/96",
            ),
            *(
                "10.0.0.0/8,fd00::/8",
                "10.0.0.0/8,",
                "primary",
                "primary,10.0.0.0/8",
                "1-2",
                "2-1",
                "30000-32767",
                "1-٣",
            ),
            *("0.0.0.0:80", "[::]:80", "127.0.0.1:70000", "127.0.0.1:", ":80", "localhost:80", "[::1", "a:b:c"),
            *("1s", "-1s", "1h30m", "9999999h", ".s", "1.s", "0", "1e3s", "9" * 400 + "s", "9" * 5000),
            *(
                "blog.yaml",
                "host",
                "nowhere",
                ".",
                "..",
                "/dev/null",
                "/proc/self/mem",
                "/dev/null/x",
                "*",
                "[",
                "x" * 300,
            ),
            *(
                "shop/web",
                "a/b/c",
                "/",
                "a=b,!c",
                "a in (b",
                "!(",
                "rr",
                "foo",
                "ipvs",
                "iptables",
                "none",
                "kubeconfig",
            ),
        ]
    ),
    st.text(max_size=12).filter(lambda text: "\0" not in text and "/" not in text),
)
NUMBERS = st.one_of(
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**32, 2**63, 2**64, 10**400]),
    st.floats(),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, WORDS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=6,
)


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own, where nothing reaches a kernel, an API server, or another process."""
    monkeypatch.chdir(tmp_path)
    Path("blog.yaml").write_text(BLOG + NODE)
    Path("host").write_text(HOST)
    Path("kubeconfig").write_text("{}")
    monkeypatch.setenv("KUBECONFIG", "nowhere")

    def no_kernel(*_: object, **__: object) -> None:
        raise HostError("no kernel is looked at here")

    for name in ("apply.plan_live", "apply.write", "cleanup.observe_live", "cleanup.write"):
        monkeypatch.setattr(f"rulegen.cli.commands.{name}", no_kernel)
    monkeypatch.setattr("rulegen.cli.engines.nginx.program.NginxService", no_kernel)
    monkeypatch.setattr("rulegen.cli.commands.plan.plan_live", no_kernel)
    monkeypatch.setattr("rulegen.cli.commands.doctor.examine", lambda *_, **__: ())
    monkeypatch.setattr("rulegen.host.commands.runner.start", no_kernel)
    monkeypatch.setattr(Agent, "run", lambda _: "stop")


@contextmanager
def captured() -> Iterator[tuple[io.TextIOWrapper, io.TextIOWrapper]]:
    streams = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with redirect_stdout(streams[0]), redirect_stderr(streams[1]), pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
        yield streams


def judge(words: Sequence[str]) -> int:
    """Run a command; whatever it was given, it ends with a code of its own and clear words."""
    try:
        with captured() as (_, err), pytest.raises(SystemExit) as stop:
            main(list(words))
    finally:
        gc.enable()
    err.flush()
    err.seek(0)
    said = err.read()
    code = stop.value.code
    assert "internal error of rulegen" not in said, said
    assert "Traceback" not in said, said
    assert code in CODES, said
    if code == 1 and words[:1] != ["doctor"]:
        assert "Error: " in said or '"kind":"Error"' in said
    return code


def parameters(command: str) -> list[click.Option]:
    results = cli.get_command(click.Context(cli), command)
    assert results is not None
    return [parameter for parameter in results.params if isinstance(parameter, click.Option)]


def given_options(command: str) -> st.SearchStrategy[list[str]]:
    """Return words for a command: some of its options, each with any value."""

    def words(option: click.Option) -> st.SearchStrategy[list[str]]:
        names = st.sampled_from([*option.opts, *option.secondary_opts])
        if option.is_flag:
            return names.map(lambda name: [name])
        offered = list(option.type.choices) if isinstance(option.type, click.Choice) else []
        values = st.one_of(st.sampled_from(offered), WORDS) if offered else WORDS
        return st.tuples(names, values).map(list)

    entry = st.one_of([words(option) for option in parameters(command)])
    return st.lists(entry, min_size=1, max_size=4).map(lambda lists: [word for words in lists for word in words])


ALONE = [(name, parameter) for name in BASES for parameter in parameters(name) if not parameter.is_flag]


class TestOptions:
    @pytest.mark.not_quick
    @FUZZ
    @given(command=st.sampled_from([*BASES]), data=st.data())
    def test_of_every_command(self, command, data):
        judge([*BASES[command], *data.draw(given_options(command))])

    @FEWER
    @given(case=st.sampled_from(ALONE), value=WORDS)
    def test_each_alone(self, case, value):
        command, option = case
        judge([*BASES[command], option.opts[-1], value])

    @pytest.mark.parametrize(
        "words",
        [
            ("run", "--metrics-address", "127.0.0.1:70000"),
            ("run", "--health-address", "foo:80"),
            ("plan", "--bind-address", "bogus"),
            ("plan", "--nodeport-addresses", "10.0.0.0/8,"),
            ("plan", "--node-port-range", "1-٣"),
            ("plan", "--node-port-range", "²-3"),
        ],
    )
    def test_that_once_were_a_fault(self, words):
        assert judge([*BASES[words[0]], *words[1:]]) == 1


ENVIRONMENT = {
    "HOME": ["", "nowhere", "\udcff"],
    "TERM": ["", "dumb", "bogus", "\udcff"],
    "COLUMNS": ["", "0", "-1", "x", "9" * 30],
    "NO_COLOR": ["1"],
    "FORCE_COLOR": ["x"],
    "KUBECONFIG": ["", ":", "nowhere", ".", "\udcff", "kubeconfig:kubeconfig"],
    "KUBERNETES_SERVICE_HOST": ["", "bogus host", "::1", "\udcff"],
    "KUBERNETES_SERVICE_PORT": ["", "x", "99999", "-1"],
    "HTTPS_PROXY": ["", "bogus", "http://[::1", "socks9://x:y"],
    "XTABLES_LOCKFILE": ["", "nowhere/x"],
    "TMPDIR": ["", "nowhere", "\udcff"],
    "LANG": ["", "bogus"],
    "NOTIFY_SOCKET": ["", "x", "@", "\udcff"],
    "WATCHDOG_USEC": ["", "x", "-1", "9" * 40],
    "RULEGEN_DEBUG": [""],
    "SSL_CERT_FILE": ["nowhere", "\udcff"],
    "PATH": ["", "\udcff", ":"],
    "USER": ["", "\udcff"],
}

VARIABLES = st.fixed_dictionaries({}, optional={k: st.sampled_from([None, *v]) for k, v in ENVIRONMENT.items()})


class TestEnvironment:
    @FUZZ
    @given(
        command=st.sampled_from([*BASES]),
        chosen=VARIABLES,
    )
    def test_of_every_command(self, command, chosen):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in chosen.items():
                if value is None:
                    patch.delenv(name, raising=False)
                else:
                    patch.setenv(name, value)
            judge(BASES[command])

    @FEWER
    @given(chosen=VARIABLES)
    def test_where_an_api_server_is_to_be_found(self, chosen):
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("KUBECONFIG")
            for name, value in chosen.items():
                if value is None:
                    patch.delenv(name, raising=False)
                else:
                    patch.setenv(name, value)
            judge(["plan", "--host", "host", "--observed", "none"])


def fields_of(struct: type[msgspec.Struct], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for field in msgspec.structs.fields(struct):
        yield (*path, field.encode_name)
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from fields_of(field.type, (*path, field.encode_name))


FIELDS = list(fields_of(KubeProxyConfiguration))

CHOSEN = st.lists(st.tuples(st.sampled_from(FIELDS), VALUES), max_size=5)


def with_field(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    document: dict[str, Any] = {"apiVersion": API_VERSION, "kind": KIND}
    here = document
    for name in path[:-1]:
        here = here.setdefault(name, {})
    here[path[-1]] = value
    return document


def write_yaml(path: str, document: object) -> None:
    text = yaml.safe_dump(document, allow_unicode=True)
    Path(path).write_bytes(text.encode("utf-8", "surrogateescape"))


class TestConfiguration:
    @FUZZ
    @given(path=st.sampled_from(FIELDS), value=VALUES, mode=st.sampled_from(["", "iptables", "ipvs"]))
    def test_each_field(self, path, value, mode):
        document = with_field(path, value)
        document.setdefault("mode", mode)
        write_yaml("config", document)
        judge([*PLAN, "--config", "config"])

    @FEWER
    @given(
        command=st.sampled_from(["plan", "run", "export"]),
        chosen=CHOSEN,
        data=st.data(),
    )
    @pytest.mark.slow
    def test_several_fields_and_flags(self, command, chosen, data):
        document: dict[str, Any] = {}
        for path, value in chosen:
            document |= with_field(path, value)
        write_yaml("config", document)
        judge([*BASES[command], *data.draw(given_options(command)), "--config", "config"])

    @FEWER
    @example(b"")
    @example(b"[]")
    @example(b"apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: [KubeProxyConfiguration]\n")
    @given(content=st.one_of(st.binary(max_size=60), VALUES.map(lambda value: yaml.safe_dump(value).encode())))
    def test_any_file(self, content):
        Path("config").write_bytes(content)
        judge([*PLAN, "--config", "config"])


SERVERS = st.sampled_from(["", "bogus", "http://", "http://[::1", "ftp://x", "http://127.0.0.1:1", 5])
CERTIFICATES = st.one_of(SCALARS, st.sampled_from(["AAAA", "bm9uZQ==", "-----BEGIN CERTIFICATE-----"]))
CLUSTER = st.fixed_dictionaries(
    {"server": SERVERS},
    optional={
        "certificate-authority-data": CERTIFICATES,
        "certificate-authority": SCALARS,
        "insecure-skip-tls-verify": SCALARS,
        "proxy-url": SCALARS,
        "tls-server-name": SCALARS,
    },
)
USER = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("token", "tokenFile", "username", "password", "client-certificate", "client-key"), SCALARS),
        **dict.fromkeys(("client-certificate-data", "client-key-data"), CERTIFICATES),
        "exec": st.one_of(SCALARS, st.dictionaries(WORDS, SCALARS, max_size=2)),
    },
)


class TestKubeconfig:
    @FUZZ
    @example(cluster={"server": "http://127.0.0.1:1", "proxy-url": True}, user={}, current="a")
    @example(cluster={"server": "https://127.0.0.1:1", "tls-server-name": 5}, user={"password": 5}, current="a")
    @example(cluster={"server": "https://127.0.0.1:1"}, user={"tokenFile": "x" * 300}, current="a")
    @example(cluster={"server": "https://127.0.0.1:1"}, user={"tokenFile": "x\0"}, current="a")
    @given(
        cluster=st.one_of(CLUSTER, SCALARS), user=st.one_of(USER, SCALARS), current=st.sampled_from(["a", "b", "", 5])
    )
    def test_whatever_it_holds(self, cluster, user, current):
        document = {
            "current-context": current,
            "clusters": [{"name": "a", "cluster": cluster}],
            "users": [{"name": "a", "user": user}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        }
        write_yaml("kubeconfig", document)
        judge(["plan", "--kubeconfig", "kubeconfig", "--host", "host", "--observed", "none"])

    @pytest.mark.parametrize("name", ["x" * 300, "/" + "x/" * 3000, "kubeconfig:" + "x" * 300])
    def test_a_name_that_no_file_can_have(self, name, monkeypatch):
        judge(["plan", "--kubeconfig", name, "--host", "host", "--observed", "none"])
        monkeypatch.setenv("KUBECONFIG", name)
        judge(["plan", "--host", "host", "--observed", "none"])

    @FEWER
    @given(content=st.one_of(st.binary(max_size=60), VALUES.map(lambda value: yaml.safe_dump(value).encode())))
    def test_any_file(self, content):
        Path("kubeconfig").write_bytes(content)
        judge(["plan", "--kubeconfig", "kubeconfig", "--host", "host", "--observed", "none"])


HOST_KEYS = ("hostname", "interfaces", "sysctls", "iptables", "nfacct", "ipv6", "kernel", "bogus")
INTERFACE = st.fixed_dictionaries(
    {}, optional={"name": SCALARS, "addresses": st.one_of(VALUES, st.lists(WORDS, max_size=3))}
)


class TestHost:
    @FUZZ
    @given(
        host=st.one_of(
            VALUES,
            st.fixed_dictionaries(
                {}, optional=dict.fromkeys(HOST_KEYS, VALUES) | {"interfaces": st.lists(INTERFACE, max_size=3)}
            ),
        ),
        is_below=st.booleans(),
        mode=st.sampled_from(["iptables", "ipvs"]),
    )
    def test_any_facts(self, host, is_below, mode):
        write_yaml("host", {"host": host} if is_below else host)
        judge([*PLAN, "--mode", mode, "--ingress"])


DUMPS = {
    "iptables.save": "*nat\n:KUBE-SERVICES - [0:0]\n"
    "-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-A\n"
    ':KUBE-SVC-A - [0:0]\n-A KUBE-SVC-A -m comment --comment "a b" -j RETURN\nCOMMIT\n',
    "ipset.save": "create KUBE-CLUSTER-IP hash:ip,port family inet hashsize 1024 maxelem 65536\n"
    "add KUBE-CLUSTER-IP 10.96.0.1,tcp:80\n",
    "ipvs": "-A -t 10.96.0.1:80 -s rr\n-a -t 10.96.0.1:80 -r 10.244.1.1:8080 -m -w 1\n",
    "addresses": "kube-ipvs0       DOWN           10.96.0.1/32\n",
    "sysctl.conf": "net.ipv4.ip_forward = 1\n",
}


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, bytes]:
    """Return dumps, each with some of its bytes or words replaced, cut or doubled."""
    files = {}
    for name in draw(st.lists(st.sampled_from(sorted(DUMPS)), min_size=1, max_size=3, unique=True)):
        words = DUMPS[name].split(" ")
        for _ in range(draw(st.integers(0, 3))):
            at = draw(st.integers(0, len(words) - 1))
            words[at : at + draw(st.integers(0, 2))] = draw(st.lists(WORDS, max_size=2))
            words = words or [""]
        content = " ".join(words).encode("utf-8", "surrogateescape")
        files[name] = content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content
    return files


class TestDumps:
    @FUZZ
    @given(files=mutated(), mode=st.sampled_from(["iptables", "ipvs"]))
    def test_whatever_they_hold(self, files, mode):
        words = [word for name in files for word in ("--observed", name)]
        for name, content in files.items():
            Path(name).write_bytes(content)
        judge(["plan", "-f", "blog.yaml", "--host", "host", "--mode", mode, *words])
