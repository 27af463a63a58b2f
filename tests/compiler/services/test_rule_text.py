"""A rule is deleted by the text with which it was written, whatever has changed since in what decides about that."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from rulegen.kube.objects import structs as k
from rulegen.kube.objects.events import Gone
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.snapshot.cluster import Touched
from rulegen.languages.iptables import script
from rulegen.languages.iptables.ruleset import read_rule
from rulegen.net import Family
from tests.compiler.services.test_services import Node, changed, endpoints, service
from tests.kernels.kernel import printed
from tests.kernels.nodekernel import NodeKernel
from tests.sizes import examples

MOST = 8


class Sized(Node):
    """Keeps a node; a change of two Services is a large one where `chunk` is 3, as nft's are cut."""

    def __init__(self, mode: str, chunk: int | None) -> None:
        super().__init__(mode)
        write = self.kernel.write
        self.kernel.write = lambda plan: write(plan, chains_per_commit=chunk)

    def grow(self, count: int, *, port: str = "http", ready: int = 1, external: int = 0) -> None:
        """Have so many Services there, and no others."""
        for number in range(MOST):
            name = f"web-{number}"
            if number >= count:
                self.take(
                    [Gone(k.Service, ObjectName("demo", name)), Gone(k.EndpointSlice, ObjectName("demo", f"{name}-0"))]
                )
                continue
            built = service(number, external=("198.51.100.7",) if number < external else ())
            spec = replace(built.spec, ports=(replace(built.spec.ports[0], name=port),))
            slices = endpoints(number, ready)
            slices = replace(slices, ports=(replace(slices.ports[0], name=port),))
            self.take([changed(replace(built, spec=spec)), changed(slices)])

    def look(self) -> None:
        """Read all, as the agent does at times, and write what is not as wanted."""
        assert self.rules is not None
        self.write_all(self.rules.compiled())


def dispatch(kernel: NodeKernel) -> list[str]:
    return kernel.kernels[Family.IPV4].tables["nat"].get("KUBE-SERVICES", [])


changes = st.lists(
    st.tuples(
        st.integers(0, MOST),
        st.sampled_from(("http", "web")),
        st.integers(0, 2),
        st.integers(0, 2),
        st.sampled_from(("", "looks", "settles")),
    ),
    min_size=2,
    max_size=6,
)


@settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    steps=changes,
    large=st.integers(0, 12),
    more=st.integers(0, 12),
    mode=st.sampled_from(("iptables", "ipvs")),
    chunk=st.sampled_from((None, 3)),
    least=st.sampled_from((1, 200)),
    stranger=st.sampled_from((None, "by another proxy", "")),
)
@pytest.mark.slow
def test_rules_are_deleted_as_written_across_the_threshold(
    monkeypatch, steps, large, more, mode, chunk, least, stranger
):
    monkeypatch.setattr(script, "LARGE", large)
    monkeypatch.setattr(script, "VERY_LARGE", large + more)
    monkeypatch.setattr(script, "REWRITE_LEAST", least)
    node = Sized(mode, chunk)
    for count, port, ready, external, work in steps:
        node.grow(count, port=port, ready=ready, external=external)
        node.sync()
        node.check()
        if work == "settles" and node.rules is not None:
            node.rules.settle_comments()
            assert not node.rules.has_outgrown
        if work == "looks":
            if stranger is not None:
                comments(node.kernel, stranger)
            node.look()
            node.check()
    node.grow(0)
    node.sync()
    node.check()
    assert not [rule for rule in dispatch(node.kernel) if "-d 10.96." in rule]


def comments(kernel: NodeKernel, comment: str) -> None:
    """Have all rules of shared chains another comment, as those of another proxy have; empty for none."""
    for state in kernel.kernels.values():
        for table in state.tables.values():
            for rules in table.values():
                rules[:] = [
                    printed(f'-m comment --comment "{comment}" {spec}') if comment else spec
                    for spec in (read_rule(rule).spec for rule in rules)
                ]


@pytest.mark.parametrize("chunk", [None, 3], ids=["legacy", "nft"])
@pytest.mark.parametrize(("many", "few"), [(8, 1), (1, 8)], ids=["falls", "rises"])
@pytest.mark.parametrize("reads", [True, False], ids=["read", "settled"])
def test_deleting_many_services_causes_no_rejected_line(monkeypatch, chunk, many, few, reads):
    monkeypatch.setattr(script, "LARGE", 2)
    monkeypatch.setattr(script, "VERY_LARGE", 14)
    node = Sized("iptables", chunk)
    node.grow(many)
    node.sync()
    for count in range(many, few, 1 if few > many else -1):
        node.grow(count)
        node.sync()
    assert node.rules is not None
    assert node.rules.has_outgrown
    if reads:
        node.look()
    else:
        node.rules.settle_comments()
    assert not node.rules.has_outgrown
    node.grow(0)
    node.sync()
    node.check()


def test_a_reject_rule_is_deleted_after_its_port_was_renamed():
    """Its comment names the port, and nothing else of it does."""
    node = Sized("iptables", None)
    node.grow(1, port="http", ready=0)
    node.sync()
    node.grow(1, port="web", ready=0)
    node.sync()
    node.grow(1, port="web", ready=1)
    node.sync()
    node.check()


def test_a_rewritten_chain_has_only_its_own_comments(monkeypatch):
    monkeypatch.setattr(script, "REWRITE_LEAST", 1)
    node = Sized("iptables", None)
    node.grow(2)
    node.sync()
    comments(node.kernel, "by another proxy")
    node.grow(8)
    touched, node.dirty = node.dirty.services, Touched()
    assert node.rules is not None
    node.rules.commit(node.rules.update(touched))
    node.look()
    assert not any("another proxy" in rule for rule in dispatch(node.kernel))
    node.grow(0)
    node.sync()
    node.check()
