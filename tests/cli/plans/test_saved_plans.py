"""Saved plans: applied as they were shown, and refused if anything that matters has changed since."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from rulegen.cli.main import main
from rulegen.cli.wiring import inputs, planning, saved_plan
from rulegen.host.netfilter.variant import Variant
from rulegen.net import Family
from tests.cli.test_left_out import HOST, NODE, service
from tests.kernels.refusing import Tools

SEEDS = range(20)
CONFIG = "{apiVersion: kubeproxy.config.k8s.io/v1alpha1, kind: KubeProxyConfiguration, clusterCIDR: 10.244.0.0/16}\n"
SERVICES = [service("web", 1, ends=(1, 2, 3)), service("shop", 9), service("zoo", 3)]
OPTIONS = ("-f", "all.yaml", "--config", "config", "--host", "host", "--variant", "nft", "--nfacct", "off")


class SavedPlans:
    """Files, and a host with a kernel in memory that executes what is written."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.tools = Tools(Variant.NFT)
        Path("host").write_text(HOST)
        Path("config").write_text(CONFIG)
        self.objects(*SERVICES)

    def objects(self, *services: str, node: str = NODE) -> None:
        Path("all.yaml").write_text(node + "".join(services))

    def run(self, *words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([*words])
        printed = self.capsys.readouterr()
        return int(stop.value.code or 0), printed.out, printed.err

    def save(self, *words: str) -> str:
        code, out, err = self.run("plan", *OPTIONS, "-v", "--out", "saved", *words)
        assert code == 0, err
        return out

    def rules(self) -> str:
        return "".join(self.tools.kernels[family].save() for family in Family)

    @property
    def nat(self) -> dict[str, list[str]]:
        return self.tools.kernels[Family.IPV4].tables["nat"]

    def refused(self, *reasons: str) -> None:
        """Check that the saved plan is refused with these reasons, and that nothing is written."""
        before = self.rules()
        code, out, err = self.run("apply", "saved", "--yes")
        assert (code, out, self.rules()) == (1, "", before), err
        assert all(reason in err for reason in reasons), err

    def applied(self) -> str:
        """Apply the saved plan, check that nothing is left to do, and return what was printed."""
        code, out, err = self.run("apply", "saved", "--yes", "-v")
        assert code == 0, err
        assert self.run("plan", *OPTIONS, "--detailed-exitcode")[0] == 0
        return out


@pytest.fixture
def saved(tmp_path, capsys, monkeypatch) -> SavedPlans:
    monkeypatch.chdir(tmp_path)
    made = SavedPlans(capsys)
    for module in (inputs, planning):
        monkeypatch.setattr(module, "run", made.tools)
    return made


@pytest.mark.parametrize("is_empty", [True, False], ids=["on an empty node", "on a node with rules"])
def test_an_unchanged_plan_is_applied_as_it_was_shown(saved, is_empty):
    if not is_empty:
        saved.save()
        saved.applied()
        saved.objects(service("web", 1, ends=(1, 2)), *SERVICES[1:])
    shown = saved.save()
    out = saved.applied()
    assert out.startswith(shown)
    assert re.fullmatch(r"Applied: \d+ changes in \d+ steps?\.\n", out.removeprefix(shown))


def objects_that_matter(saved: SavedPlans, pick: random.Random) -> str:
    """Change a Service or its endpoints."""
    number = pick.randrange(3)
    names = ("web", "shop", "zoo")
    changed = list(SERVICES)
    match pick.randrange(3):
        case 0:
            changed[number] = service(names[number], pick.randrange(20, 200))
        case 1:
            changed[number] = service(names[number], (1, 9, 3)[number], ends=(pick.randrange(20, 200),))
        case _:
            del changed[number]
    saved.objects(*changed)
    return f"Services have changed: demo/{names[number]}"


def rules_that_matter(saved: SavedPlans, pick: random.Random) -> str:
    """Change something in a chain of ours; the endpoints of the plan are already there."""
    chain = pick.choice(sorted(name for name in saved.nat if name.startswith(("KUBE-SVC-", "KUBE-SEP-"))))
    match pick.randrange(3):
        case 0:
            saved.nat[chain].pop()
        case 1:
            saved.nat[chain].insert(0, f"-s 192.0.2.{pick.randrange(1, 255)}/32 -j RETURN")
        case _:
            saved.nat["KUBE-SERVICES"].pop(0)
    return "the state of this node has changed: iptables"


def facts_that_matter(saved: SavedPlans, pick: random.Random) -> str:
    """Change a fact that rules depend on: addresses that answer on node ports, IPv6, --random-fully."""
    changed = pick.choice(
        [
            HOST + "  ipv6: false\n",
            HOST + "  iptables: 1.6.0\n",
            HOST.replace("node1", "node2"),
        ]
    )
    Path("host").write_text(changed)
    if "node2" in changed:
        saved.objects(*SERVICES, node=NODE.replace("node1", "node2"))
        return "the node has changed: the plan is for node1, this is node2"
    return "facts of the host have changed: "


def configuration_that_matters(saved: SavedPlans, pick: random.Random) -> str:
    bit = pick.choice([0, 3, 5, 7, 20, 31])
    number = pick.randrange(16, 200)
    change = pick.choice([f", iptables: {{masqueradeBit: {bit}}}", ", iptables: {masqueradeAll: true}", ""])
    text = CONFIG.replace("}\n", change + "}\n")
    Path("config").write_text(text if change else text.replace("10.244.0.0", f"10.{number}.0.0"))
    return "the configuration has changed"


def version_that_matters(saved: SavedPlans, pick: random.Random) -> str:
    document = json.loads(Path("saved").read_text())
    document["version"] = f"0.0.{pick.randrange(100)}"
    Path("saved").write_text(json.dumps(document))
    return f"the version of rulegen has changed: {document['version']} made the plan"


def nothing_foreign(saved: SavedPlans, pick: random.Random) -> None:
    """Change rules of other programs."""
    kernel = saved.tools.kernels[pick.choice(list(Family))]
    nat = kernel.tables.setdefault("nat", {})
    nat[f"OTHER-{pick.randrange(100)}"] = [f"-p tcp -m tcp --dport {pick.randrange(1, 65536)} -j ACCEPT"]
    nat.setdefault("PREROUTING", []).append(f"-s 192.0.2.{pick.randrange(1, 255)}/32 -j ACCEPT")


def nothing_in_objects(saved: SavedPlans, pick: random.Random) -> None:
    """Change what no rule depends on: labels, the order of objects, other kinds, comments."""
    changed = list(SERVICES)
    pick.shuffle(changed)
    label = f"labels: {{tier: t{pick.randrange(100)}}}, creationTimestamp"
    changed[0] = changed[0].replace("creationTimestamp", label, 1)
    pod = f"---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: d{pick.randrange(100)}}}\n"
    saved.objects(*changed, pod)
    Path("config").write_text(f"# comment {pick.randrange(100)}\n{CONFIG}")


def nothing_in_facts(saved: SavedPlans, pick: random.Random) -> None:
    """Add an interface of a Pod, or a gateway."""
    veth = f", {{name: veth{pick.randrange(1000)}}}]"
    Path("host").write_text(
        re.sub(r"\]\n$", veth + "\n", HOST) if pick.random() < 0.7 else f"{HOST}  gateways: [192.168.50.1]\n"
    )


MATTERS: list[Callable[[SavedPlans, random.Random], str]] = [
    objects_that_matter,
    rules_that_matter,
    facts_that_matter,
    configuration_that_matters,
    version_that_matters,
]
IRRELEVANT: list[Callable[[SavedPlans, random.Random], None]] = [nothing_foreign, nothing_in_objects, nothing_in_facts]


@pytest.fixture
def pending(saved: SavedPlans) -> SavedPlans:
    """Save a plan for a node that has other endpoints."""
    saved.objects(service("web", 1, ends=(1, 2)), *SERVICES[1:])
    saved.save()
    saved.applied()
    saved.objects(*SERVICES)
    saved.save()
    return saved


@pytest.mark.parametrize("change", MATTERS, ids=lambda change: change.__name__)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_plan_is_refused_after_a_change_that_matters(pending, change, seed):
    pending.refused(change(pending, random.Random(seed)))


@pytest.mark.parametrize("change", IRRELEVANT, ids=lambda change: change.__name__)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_plan_is_applied_after_a_change_that_does_not_matter(pending, change, seed):
    change(pending, random.Random(seed))
    pending.applied()
    assert "--to-destination 10.244.1.3:8080" in pending.rules()


def test_the_file_is_private_and_replaces_only_a_saved_plan(saved):
    os.umask(0)
    saved.save()
    assert Path("saved").stat().st_mode & 0o7777 == 0o600
    first = Path("saved").read_bytes()
    saved.objects(*SERVICES[:1])
    saved.save()
    assert Path("saved").read_bytes() != first
    Path("notes").write_text("mine")
    code, out, err = saved.run("plan", *OPTIONS, "--out", "notes")
    assert (code, out, Path("notes").read_text()) == (1, "", "mine")
    assert "is not a saved plan" in err


def test_a_preview_is_not_saved(saved):
    bare = SERVICES[0].replace("  clusterIP: 10.96.0.1\n  clusterIPs: [10.96.0.1]\n", "")
    saved.objects(bare)
    code, out, err = saved.run("plan", *OPTIONS, "--out", "saved")
    assert (code, out, Path("saved").exists()) == (1, "", False)
    assert "assigned for a preview only" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("plan", *OPTIONS, "--observed", "none", "--out", "new"), "--observed cannot be applied"),
        (("plan", "-f", "-", *OPTIONS[2:], "--out", "new"), "standard input cannot be read again"),
        (("plan", *OPTIONS, "--out", "-"), "a saved plan is a file, not standard output"),
        (("apply", "saved", "--mode", "ipvs"), "--mode: a saved plan has its own options"),
        (("apply", "shop/web"), "apply needs a saved plan, and cannot apply a part of a plan"),
        (("apply", "all.yaml"), "is not a saved plan"),
    ],
)
def test_what_cannot_be_saved_or_applied_is_an_error(saved, words, message):
    saved.save()
    code, out, err = saved.run(*words)
    assert (code, out) == (1, "")
    assert message in err
    assert not Path("new").exists()
    assert not Path("-").exists()
    assert "KUBE" not in saved.rules()


def test_a_file_that_others_can_change_is_not_applied(saved):
    saved.save()
    Path("saved").chmod(0o620)
    saved.refused("other users can change it")


def test_options_of_the_environment_are_those_of_the_saved_plan(saved, monkeypatch):
    monkeypatch.setenv("RULEGEN_MASQUERADE_ALL", "true")
    shown = saved.save()
    monkeypatch.setenv("RULEGEN_MASQUERADE_ALL", "false")
    monkeypatch.setenv("RULEGEN_MODE", "ipvs")
    code, out, _ = saved.run("apply", "saved", "--yes", "-v")
    assert (code, out.startswith(shown)) == (0, True)
    assert os.environ["RULEGEN_MODE"] == "ipvs"


def test_relative_paths_are_those_of_the_folder_where_it_was_saved(saved, monkeypatch, tmp_path):
    saved.save()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert saved.run("apply", "../saved", "--yes")[0] == 0
    assert "KUBE-SVC-" in saved.rules()


def test_the_digest_of_a_value_without_a_stable_text_is_an_error():
    with pytest.raises(TypeError):
        saved_plan.digest([object()])
