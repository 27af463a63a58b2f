"""A parameter that is dangerous without a rule is never without it: after any step of anything, on kernels in memory.

`route_localnet` and the rule of KUBE-FIREWALL; `nf_conntrack_tcp_be_liberal` and the rule that drops INVALID packets.
"""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from rulegen.cli.main import main
from rulegen.compiler.services.compile import Compiled, compile_model
from rulegen.compiler.services.other_variant import beside_warning
from rulegen.compiler.services.plan import plan_cleanup, plan_node
from rulegen.compiler.tables import TABLES
from rulegen.kube.snapshot.world import ClusterSnapshot
from rulegen.languages.nftables.state import NftChain, TableValue, table_key
from rulegen.model.host.facts import HostFacts
from rulegen.model.services.ir import NftExtra
from rulegen.model.services.options import Options
from rulegen.model.services.resolve import resolve
from rulegen.net import Family, parse_network
from rulegen.plan.plan import Plan
from tests.cli.test_plan import BLOG, HOST
from tests.kernels.kernel import Kernel, RefusedError
from tests.kernels.nodekernel import NodeKernel
from tests.sizes import examples
from tests.strategies.services import NODE, worlds

ROUTE_LOCALNET = "net.ipv4.conf.all.route_localnet"
BE_LIBERAL = "net.netfilter.nf_conntrack_tcp_be_liberal"
GUARD = "! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
KUBELETS = GUARD.replace(" -m conntrack", ' -m comment --comment "block incoming localnet connections" -m conntrack')
FEW = settings(
    max_examples=examples(30), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

modes = st.sampled_from(("iptables", "iptables", "ipvs", "nftables"))
actions = st.sampled_from(("apply", "apply", "apply", "cleanup", "cleanup", "other variant", "kubelet", "read-only"))


def cuts(pieces: int) -> st.SearchStrategy[int]:
    """After how many pieces a write is cut off; every other one is not."""
    return st.just(pieces) | st.integers(0, pieces)


def a_node() -> NodeKernel:
    return NodeKernel(parameters={ROUTE_LOCALNET: "0", BE_LIBERAL: "0", "net.ipv4.ip_forward": "0"})


def facts_of(node: NodeKernel) -> HostFacts:
    return HostFacts(sysctls=dict(node.parameters), fixed_sysctls=node.fixed)


def wanted(node: NodeKernel, world: ClusterSnapshot, mode: str = "iptables", **options: object) -> Compiled:
    extras = {NftExtra.LOCALHOST_NODE_PORTS} if options.get("localhost_node_ports", True) else set()
    chosen = Options(
        mode=mode,
        node_name=NODE,
        cluster_cidrs=(parse_network("10.244.0.0/16"),),
        nft_extras=frozenset(extras),
        **options,
    )
    return compile_model(resolve(world, chosen, facts_of(node)), mode, counts=False, tables=TABLES.with_layout("flat"))


def planned(node: NodeKernel, world: ClusterSnapshot, mode: str = "iptables", **options: object) -> Plan:
    return plan_node(wanted(node, world, mode, **options), node.observed(), facts_of(node))


def cleaned(node: NodeKernel, *, beside: str = "legacy") -> Plan:
    return plan_cleanup("iptables", node.observed(), facts=facts_of(node), beside=beside)


def guards(kernel: Kernel) -> bool:
    """Whether a packet from the network to 127.0.0.0/8 is dropped, read off the rules without rulegen's code."""
    rules = kernel.tables["filter"]
    leads = any(rule.endswith("-j KUBE-FIREWALL") for rule in rules["INPUT"])
    return leads and any(rule.endswith("-j DROP") and "! -s 127.0.0.0/8" in rule for rule in rules["KUBE-FIREWALL"])


def guards_by_nftables(node: NodeKernel) -> bool:
    """Whether a chain of prerouting drops such a packet."""
    chains = [value for value in node.tables[Family.IPV4].values() if isinstance(value, NftChain) and value.base]
    rules = {str(rule) for chain in chains if chain.base.hook == "prerouting" for rule in chain.rules}
    return 'iifname != "lo" ip daddr 127.0.0.0/8 drop' in rules


def is_open(node: NodeKernel) -> bool:
    """Whether neighbours reach the node's loopback addresses."""
    both = (node.kernels[Family.IPV4], node.beside[Family.IPV4])
    return node.parameters[ROUTE_LOCALNET] != "0" and not any(map(guards, both)) and not guards_by_nftables(node)


def resets_clients(node: NodeKernel) -> bool:
    """Whether Services are served by DNAT, and stray packets of their connections pass."""
    kernel = node.kernels[Family.IPV4]
    serves = any(rule.endswith("-j KUBE-SERVICES") for rule in kernel.tables["nat"]["PREROUTING"])
    drops = any("--ctstate INVALID" in rule for rule in kernel.tables["filter"].get("KUBE-FORWARD", ()))
    return serves and not drops and node.parameters[BE_LIBERAL] == "0"


def add_kubelet(kernel: Kernel) -> None:
    kernel.tables["mangle"]["KUBE-KUBELET-CANARY"] = []
    rules = kernel.tables["filter"]
    chain = rules.setdefault("KUBE-FIREWALL", [])
    if not any("-j DROP" in rule for rule in chain):
        chain.append(KUBELETS)
    for built_in in ("INPUT", "OUTPUT"):
        if "-j KUBE-FIREWALL" not in rules[built_in]:
            rules[built_in].insert(0, "-j KUBE-FIREWALL")


@FEW
@given(st.lists(st.tuples(actions, worlds(), modes, st.booleans()), min_size=2, max_size=5), st.data())
def test_neighbours_never_reach_the_loopback_addresses(steps, data):
    """Applies, switches of mode, cleanups, each cut off anywhere, on nodes with and without a kubelet."""
    node = a_node()
    for action, world, mode, localhost in steps:
        match action:
            case "apply":
                plan = planned(node, world, mode, localhost_node_ports=localhost)
            case "cleanup":
                plan = cleaned(node, beside=data.draw(st.sampled_from(("", "legacy"))))
            case "other variant":  # the same node, seen by who writes the other one
                node.kernels, node.beside = node.beside, node.kernels
                plan = planned(node, world, mode, localhost_node_ports=localhost)
            case "kubelet":
                add_kubelet(node.kernels[Family.IPV4])
                continue
            case _:
                node.fixed = frozenset() if node.fixed else frozenset({ROUTE_LOCALNET})
                continue
        pieces = list(node.pieces(plan))
        with suppress(RefusedError):  # a parameter that cannot be set ends an apply
            for piece in pieces[: data.draw(cuts(len(pieces)))]:
                piece()
                assert not is_open(node), f"open after {piece.func.__name__}{piece.args} of {action}"
        assert not is_open(node)


@FEW
@given(st.lists(st.tuples(worlds(), st.booleans(), st.booleans()), min_size=2, max_size=4), st.data())
@pytest.mark.slow
def test_stray_packets_never_reset_clients(steps, data):
    """With conntrack.tcpBeLiberal and without, where the parameter can be set and where not, cut off anywhere."""
    node = a_node()
    for world, liberal, is_read_only in steps:
        node.fixed = frozenset({BE_LIBERAL}) if is_read_only else frozenset()
        pieces = list(node.pieces(planned(node, world, conntrack_be_liberal=liberal)))
        for piece in pieces[: data.draw(cuts(len(pieces)))]:
            piece()
            assert not resets_clients(node), f"no rule, no parameter after {piece.func.__name__}{piece.args}"
        node.write(planned(node, world, conntrack_be_liberal=liberal))
        assert planned(node, world, conntrack_be_liberal=liberal).is_empty


@pytest.mark.parametrize("interrupted_after", range(8))
def test_cleanup_closes_the_loopback_prefix_first(interrupted_after):
    node = a_node()
    node.write(planned(node, ClusterSnapshot()))
    assert node.parameters[ROUTE_LOCALNET] == "1"
    for piece in list(node.pieces(cleaned(node)))[:interrupted_after]:
        piece()
    assert interrupted_after == 0 or node.parameters[ROUTE_LOCALNET] == "0"
    node.write(cleaned(node))
    assert node.parameters[ROUTE_LOCALNET] == "0"
    assert "KUBE-FIREWALL" not in node.kernels[Family.IPV4].tables["filter"]


def test_cleanup_does_not_set_an_unknown_parameter():
    node = a_node()
    node.write(planned(node, ClusterSnapshot()))
    del node.parameters[ROUTE_LOCALNET]
    node.write(cleaned(node))
    assert ROUTE_LOCALNET not in node.parameters
    assert "KUBE-FIREWALL" not in node.kernels[Family.IPV4].tables["filter"]


@pytest.mark.parametrize("mode", ["cleanup", "ipvs"])
def test_with_a_kubelet_both_stay_and_it_is_said(mode):
    node = a_node()
    node.write(planned(node, ClusterSnapshot()))
    add_kubelet(node.kernels[Family.IPV4])
    plan = cleaned(node) if mode == "cleanup" else planned(node, ClusterSnapshot(), mode)
    node.write(plan)
    assert node.parameters[ROUTE_LOCALNET] == "1"
    assert guards(node.kernels[Family.IPV4])
    assert [note for note in plan.notes if ROUTE_LOCALNET in note and "KUBE-FIREWALL" in note and "kubelet" in note]


def test_where_the_parameter_cannot_be_set_the_chain_of_nftables_stays():
    node = a_node()
    node.write(planned(node, ClusterSnapshot(), "nftables"))
    assert node.parameters[ROUTE_LOCALNET] == "1"
    node.fixed = frozenset({ROUTE_LOCALNET})
    for is_cleanup in (False, True):
        plan = cleaned(node) if is_cleanup else planned(node, ClusterSnapshot(), "ipvs")
        node.write(plan)
        assert not is_open(node)
        assert "the rule of loopback-guard that protects it stay: the parameter cannot be set to 0" in plan.notes[0]
    assert {key.name for key in node.tables[Family.IPV4]} == {"", "loopback-guard"}
    node.fixed = frozenset()
    node.write(cleaned(node))
    assert node.parameters[ROUTE_LOCALNET] == "0"
    assert not any(node.tables.values())


@pytest.mark.parametrize("mode", ["cleanup", "ipvs"])
def test_where_the_parameter_cannot_be_set_the_guard_alone_stays(mode):
    node = a_node()
    node.write(planned(node, ClusterSnapshot()))
    node.fixed = frozenset({ROUTE_LOCALNET})
    plan = cleaned(node) if mode == "cleanup" else planned(node, ClusterSnapshot(), mode)
    node.write(plan)
    assert not is_open(node)
    assert "cannot be set to 0" in plan.notes[0]
    chains = {name for chains in node.kernels[Family.IPV4].tables.values() for name in chains if "KUBE" in name}
    assert mode == "ipvs" or chains == {"KUBE-FIREWALL"}
    again = cleaned(node) if mode == "cleanup" else planned(node, ClusterSnapshot(), mode)
    assert again.of("iptables")[Family.IPV4].changes == ()


def test_a_referenced_guard_is_emptied_after_the_parameter():
    node = a_node()
    node.write(planned(node, ClusterSnapshot()))
    node.kernels[Family.IPV4].tables["filter"]["MINE"] = ["-j KUBE-FIREWALL"]
    for piece in node.pieces(cleaned(node)):
        piece()
        assert not is_open(node)
    assert node.kernels[Family.IPV4].tables["filter"]["KUBE-FIREWALL"] == []


def test_the_guard_of_the_other_variant_is_enough_while_it_stays():
    node = a_node()
    node.write(planned(node, ClusterSnapshot()))
    node.kernels, node.beside = node.beside, node.kernels
    node.write(planned(node, ClusterSnapshot()))
    plan = cleaned(node, beside="")
    node.write(plan)
    assert node.parameters[ROUTE_LOCALNET] == "1"
    assert "other iptables variant" in plan.notes[0]
    assert not is_open(node)
    both = cleaned(node)
    assert {item.variant for item in both.items if item.language == "iptables"} == {"legacy"}
    node.write(both)
    assert node.parameters[ROUTE_LOCALNET] == "0"
    assert not node.observed().beside


@settings(FEW, max_examples=examples(20))
@given(worlds(), st.booleans())
def test_sets_are_deleted_after_the_other_variants_rules(world, takes_both):
    node = a_node()
    node.write(planned(node, world, "ipvs"))
    node.kernels, node.beside = node.beside, node.kernels
    looked_into = {name for name in node.sets if any(f"--match-set {name} " in k.save() for k in node.beside.values())}
    node.write(cleaned(node, beside="legacy" if takes_both else ""))
    assert node.sets.keys() == (set() if takes_both else looked_into)


def test_rules_of_a_proxy_in_the_other_variant_are_warned_of():
    node = a_node()
    assert beside_warning(node.observed().beside, "nft") == ""
    add_kubelet(node.beside[Family.IPV4])
    assert beside_warning(node.observed().beside, "nft") == ""  # a kubelet is no proxy
    node.kernels, node.beside = node.beside, node.kernels
    node.write(planned(node, ClusterSnapshot()))
    node.kernels, node.beside = node.beside, node.kernels
    warning = beside_warning(node.observed().beside, "nft")
    assert warning.startswith("iptables-legacy has ")
    assert "rulegen cleanup --variant legacy" in warning
    other = beside_warning(node.observed().beside, "legacy")
    assert other.startswith("iptables-nft has ")
    assert "rulegen cleanup --variant nft" in other


def test_an_unreadable_conntrack_parameter_is_planned():
    """As on a node whose kernel has not loaded conntrack yet: the rule is left out, so the parameter is set."""
    node = a_node()
    del node.parameters[BE_LIBERAL]
    plan = planned(node, ClusterSnapshot(), conntrack_be_liberal=True)
    assert (BE_LIBERAL, None, "1") in plan.sysctls
    assert [item.name for item in plan.items if item.language == "sysctl"] == [ROUTE_LOCALNET, BE_LIBERAL]
    assert not any("INVALID" in line.text for item in plan.items for line in item.lines)
    node.write(plan)
    del node.parameters[BE_LIBERAL]
    node.kernels[Family.IPV4].tables["nat"]["KUBE-MARK-MASQ"].clear()
    again = planned(node, ClusterSnapshot(), conntrack_be_liberal=True)
    assert not again.is_empty
    assert again.sysctls == ()  # the chain of the rule that is left out is as it should be


LIBERAL = (
    "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nconntrack: {tcpBeLiberal: true}\n"
)


@pytest.mark.parametrize("mode", ["iptables", "ipvs"])
@pytest.mark.parametrize("is_liberal", [True, False])
def test_export_orders_the_rule_and_the_parameter(tmp_path, monkeypatch, mode, is_liberal):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").write_text(LIBERAL if is_liberal else LIBERAL.replace("true", "false"))
    (tmp_path / "blog.yaml").write_text(BLOG)
    (tmp_path / "host").write_text(HOST)
    given = (
        "-f",
        "blog.yaml",
        "--host",
        "host",
        "--config",
        "config",
        "--mode",
        mode,
        "--cluster-cidr",
        "10.244.0.0/16",
    )
    assert ended("export", *given, "-o", "out") == 0
    rules, parameters = (tmp_path / "out" / name for name in ("iptables.save", "sysctl.conf"))
    assert ("--ctstate INVALID" in rules.read_text()) is (mode == "iptables" and not is_liberal)
    lines = parameters.read_text().splitlines()
    assert (f"{BE_LIBERAL} = 1" in lines) is is_liberal
    if mode == "iptables":
        assert f"{ROUTE_LOCALNET} = 1" in lines
        assert lines[0].startswith("# Load this after the rules: ")
        assert ended("plan", *given, "--observed", "out", "--detailed-exitcode") == 0


def ended(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return stop.value.code or 0


@pytest.mark.parametrize("mode", ["iptables", "ipvs"])
def test_a_plan_against_an_empty_node_sets_a_liberal_conntrack(tmp_path, monkeypatch, capsys, mode):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").write_text(LIBERAL)
    (tmp_path / "blog.yaml").write_text(BLOG)
    (tmp_path / "host").write_text(HOST)
    given = ("-f", "blog.yaml", "--host", "host", "--config", "config", "--mode", mode)
    assert ended("plan", *given, "--observed", "none") == 0
    out = capsys.readouterr().out
    assert f"~ kernel parameter {BE_LIBERAL}: 1" in out
    assert "INVALID" not in out


def exposed(node: NodeKernel) -> set[str]:
    """Return the addresses of Services at which clients reach what else listens on this node."""
    rules = node.kernels[Family.IPV4].tables["filter"]
    leads = any(rule.endswith("-j KUBE-IPVS-FILTER") for rule in rules["INPUT"])
    rejects = [rule for rule in rules.get("KUBE-IPVS-FILTER", ()) if "-j REJECT" in rule]
    names = {rule.partition("--match-set ")[2].split(" ")[0] for rule in rejects} if leads else set()
    refused = {entry for name in names for entry in node.sets[name][1]}
    bound = {str(key.address) for key in node.addresses if key.family is Family.IPV4}
    return bound - refused


@FEW
@given(
    st.lists(st.tuples(worlds(), st.sampled_from(("ipvs", "ipvs", "iptables", "cleanup"))), min_size=2, max_size=4),
    st.data(),
)
def test_bound_addresses_reach_no_other_port_of_the_node(steps, data):
    """In ipvs mode: at first, while Services change, at switches of mode and cleanups, each cut off anywhere."""
    node = a_node()
    for world, mode in steps:
        plan = cleaned(node) if mode == "cleanup" else planned(node, world, mode)
        pieces = list(node.pieces(plan))
        for piece in pieces[: data.draw(cuts(len(pieces)))]:
            piece()
            assert not exposed(node), f"exposed after {piece.func.__name__}{piece.args}"


def test_a_table_of_nftables_beside_rules_in_both_variants_is_removed_once():
    node = a_node()
    for _ in range(2):
        node.write(planned(node, ClusterSnapshot()))
        node.kernels, node.beside = node.beside, node.kernels
    observed = node.observed()
    table = {table_key("rulegen"): TableValue()}
    both = replace(observed, states={**observed.states, ("nftables", Family.IPV4): table})
    plan = plan_cleanup("iptables", both, facts=facts_of(node), beside="legacy")
    assert [(item.name, item.variant) for item in plan.items if item.language == "nftables"] == [("rulegen", "")]
    assert {item.variant for item in plan.items if item.language == "iptables"} == {"", "legacy"}
