"""The search for Services that the kernel refuses: exactly these are left out, all others are written, and once."""

from __future__ import annotations

import errno
from collections.abc import Collection

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rulegen.compiler.services.attribution import Belongings
from rulegen.compiler.tables import LANGUAGES
from rulegen.errors import ApplyError, HostError
from rulegen.host.commands.runner import MissingToolError
from rulegen.host.dataplane.drivers import DRIVERS
from rulegen.host.dataplane.refused_services import ENOUGH, MOST_TRIES, Search, is_refusal
from rulegen.host.ipvs.addresses import AddressesError
from rulegen.host.ipvs.servers import ServersError
from rulegen.host.netfilter.ipset import SetError
from rulegen.host.netfilter.iptables import LockError
from rulegen.host.netfilter.restore_error import RestoreError
from rulegen.host.netfilter.variant import Variant
from rulegen.languages.addresses import script as links
from rulegen.languages.addresses.state import AddressKey
from rulegen.languages.iptables.rules import Rule
from rulegen.languages.iptables.ruleset import ChainName
from rulegen.languages.iptables.state import RulesFragment as RuleFragment
from rulegen.languages.ipvs.script import IpvsCommand, IpvsVerb
from rulegen.languages.ipvs.state import Frontend, VirtualServer, VirtualServerKey
from rulegen.net import Family, Protocol, parse_address
from rulegen.plan.fragments import OwnedObjects
from tests.sizes import examples

KINDS = {
    "plain": ("-p tcp -m tcp -j ACCEPT",),
    "udp": ("-p udp -m udp -j ACCEPT",),
    "sticky": ("-p tcp -m tcp -j ACCEPT", "-m recent --set -j ACCEPT"),
    "counted": ("-p tcp -m tcp -j ACCEPT", "-m nfacct --nfacct-name x -j ACCEPT"),
}


class Kernel:
    """Takes Services, but for those of which a rule is refused; says which as nft does, or not, as legacy does."""

    def __init__(self, kinds: dict[str, str], *, names_lines: bool, lacks: str = "", bad: Collection[str] = ()) -> None:
        self.kinds, self.names_lines, self.lacks, self.bad = kinds, names_lines, lacks, bad
        self.written: list[str] = []
        self.tries = 0
        self.fragments = [
            OwnedObjects(
                owner,
                Family.IPV4,
                {"iptables": RuleFragment(owner, Family.IPV4, {self.chain(owner): self.rules(owner)})},
            )
            for owner in kinds
        ]

    @staticmethod
    def chain(owner: str) -> ChainName:
        return ChainName("nat", f"KUBE-SVC-{owner.upper()}")

    def rules(self, owner: str) -> tuple[Rule, ...]:
        return tuple(Rule(f"-s 10.0.0.{number}/32 {spec}") for number, spec in enumerate(KINDS[self.kinds[owner]], 1))

    def refuses(self, owner: str) -> bool:
        return owner in self.bad or any(self.lacks and self.lacks in rule.spec for rule in self.rules(owner))

    def write(self, owners: Collection[str], *, with_node: bool = False) -> HostError | None:
        del with_node
        self.tries += 1
        lines = ["*nat"]
        said = []
        for owner in sorted(owners):
            for rule in self.rules(owner):
                lines.append(f"-A {self.chain(owner).chain} {rule.spec}")
                if owner in self.bad or (self.lacks and self.lacks in rule.spec):
                    said.append(f"line {len(lines)}: RULE_APPEND failed (Invalid argument): rule in chain X")
        lines.append("COMMIT")
        if not any(map(self.refuses, owners)):
            self.written += sorted(owners)
            return None
        stderr = "\n".join(said) if self.names_lines else f"iptables-restore: line {len(lines)} failed"
        return RestoreError(Variant.NFT, Family.IPV4, "\n".join(lines), code=4, stderr=stderr)

    def search(self):
        error = self.write(self.kinds)
        if error is None:
            return {}
        return Search(self.write, Belongings(self.fragments, LANGUAGES), DRIVERS).run(sorted(self.kinds), error).refused


services = st.integers(1, 60).flatmap(
    lambda count: st.fixed_dictionaries({f"s{number:02}": st.sampled_from(sorted(KINDS)) for number in range(count)})
)


@settings(max_examples=examples(60), deadline=None)
@given(services, st.booleans(), st.sampled_from(("", "-m recent", "-m nfacct")), st.data())
def test_only_rejected_services_are_left_out(kinds, names_lines, lacks, data):
    bad = data.draw(st.sets(st.sampled_from(sorted(kinds)), max_size=3))
    kernel = Kernel(kinds, names_lines=names_lines, lacks=lacks, bad=bad)
    refused = kernel.search()
    assert sorted(kernel.written) == sorted(owner for owner in kinds if not kernel.refuses(owner))
    assert set(refused) == {owner for owner in kinds if kernel.refuses(owner)}


@pytest.mark.slow
@pytest.mark.parametrize("names_lines", [True, False])
def test_tries_for_a_missing_match_do_not_grow_with_services(names_lines):
    tries = []
    for sticky in (3, 3_000):
        kinds = {f"s{number:04}": "sticky" if number < sticky else "plain" for number in range(6_000)}
        kernel = Kernel(kinds, names_lines=names_lines, lacks="-m recent")
        assert len(kernel.search()) == sticky
        assert len(kernel.written) == 6_000 - sticky
        tries.append(kernel.tries)
    assert max(tries) <= 10


@pytest.mark.not_quick
def test_three_rejected_of_ten_thousand_within_the_bound():
    kernel = Kernel({f"s{n:05}": "plain" for n in range(10_000)}, names_lines=False, bad={"s00007", "s05000", "s09999"})
    assert set(kernel.search()) == kernel.bad
    assert kernel.tries < MOST_TRIES


def test_the_search_ends_if_half_of_all_are_rejected():
    kinds = {f"s{number:04}": "plain" for number in range(2_000)}
    kernel = Kernel(kinds, names_lines=False, bad={owner for owner in kinds if int(owner[1:]) % 2})
    refused = kernel.search()
    assert kernel.tries <= MOST_TRIES + ENOUGH + 1
    assert kernel.bad & set(kernel.written) == set()
    assert set(refused) == set(kinds) - set(kernel.written)
    assert "not tested yet: too many others were rejected" in refused.values()


def test_what_the_node_needs_is_refused_whoever_is_left_out():
    kernel = Kernel({"a": "plain", "b": "udp"}, names_lines=False)
    no = RestoreError(Variant.LEGACY, Family.IPV4, "*nat\nCOMMIT", code=1, stderr="iptables-restore: line 2 failed")
    tried = []

    def refuse(owners, *, with_node):
        tried.append((sorted(owners), with_node))
        return no

    with pytest.raises(RestoreError):
        Search(refuse, Belongings(kernel.fragments, LANGUAGES), DRIVERS).run(["a", "b"], no)
    assert tried == [([], True)]


def test_a_failure_of_another_kind_in_the_middle_ends_the_search():
    kernel = Kernel({"a": "plain", "b": "sticky"}, names_lines=False, lacks="-m recent")
    error = kernel.write(kernel.kinds)

    def fail(owners, *, with_node):
        raise LockError(5, None)

    with pytest.raises(LockError):
        Search(fail, Belongings(kernel.fragments, LANGUAGES), DRIVERS).run(["a", "b"], error)


NFT = "iptables-nft-restore v1.8.9 (nf_tables): \n"
LEGACY = "iptables-restore v1.8.9 (legacy): "
SCRIPT = "*nat\n:T - [0:0]\n-A T -j ACCEPT\n-D T -j DROP\nCOMMIT"
SERVER = IpvsCommand(
    IpvsVerb.ADD_SERVICE,
    VirtualServerKey(Frontend.of(Protocol.SCTP, parse_address("10.96.0.1"), 80)),
    VirtualServer("rr"),
)
BIND = links.AddressCommand(
    links.AddressVerb.BIND, "kube-ipvs0", AddressKey("kube-ipvs0", Family.IPV4, parse_address("10.96.0.1"), 32)
)


def restore(code: int, stderr: str) -> RestoreError:
    return RestoreError(Variant.NFT, Family.IPV4, SCRIPT, code=code, stderr=stderr)


@pytest.mark.parametrize(
    ("error", "is_by_a_service"),
    [  # the texts are what iptables 1.8.9 prints
        (restore(4, NFT + "line 3: RULE_APPEND failed (No such file or directory): rule in chain T"), True),
        (restore(1, "iptables-restore: line 5 failed"), True),
        (restore(2, LEGACY + "Couldn't load match `bogus':No such file\n\nError occurred at line: 3"), True),
        (restore(2, LEGACY + 'Bad IP address "10.0.0.999"\nError occurred at line: 3'), True),
        (restore(1, "line 4 failed: Bad rule (does a matching rule exist in that chain?)"), False),
        (restore(4, "line 3: RULE_APPEND failed (Cannot allocate memory): rule in chain T"), False),
        (restore(4, "iptables-nft-restore: line 5 failed: No buffer space available."), False),
        (restore(4, "line 3: CHAIN_DEL failed (Device or resource busy): chain T"), False),
        (restore(-9, ""), False),
        (SetError("add A 10.0.0.1\n", "ipset v7.17: Error in line 1: Element is out of the range of the set"), True),
        (SetError("add A 10.0.0.1\n", "ipset v7.17: Cannot open session to kernel."), False),
        (SetError("destroy A\n", "ipset v7.17: Error in line 1: Set cannot be destroyed: it is in use"), False),
        (ServersError([(SERVER, errno.EPROTONOSUPPORT)], 3), True),
        (ServersError([(SERVER, errno.ENOMEM)], 3), False),
        (ServersError([(SERVER, errno.EPERM)], 3), False),
        (AddressesError([(BIND, errno.EINVAL)], 1, 2), True),
        (AddressesError([(BIND, errno.ENOMEM)], 1, 2), False),
        (LockError(5, None), False),
        (MissingToolError("iptables-nft-restore"), False),
        (HostError("iptables-nft-restore did not end within 40 s and was killed"), False),
    ],
)  # fmt: skip
def test_only_what_is_by_the_content_is_searched_for(error: HostError, is_by_a_service: bool):
    assert is_refusal(error, DRIVERS) is is_by_a_service
    wrapped = ApplyError(error.message, applied=(), pending=())
    wrapped.__cause__ = error
    assert is_refusal(wrapped, DRIVERS) is is_by_a_service


def test_nft_names_every_line_and_legacy_an_extension():
    lines = [
        f"line {n}: RULE_{verb} failed (Invalid argument): rule in chain T"
        for n, verb in ((3, "APPEND"), (4, "DELETE"))
    ]
    refusal = restore(4, NFT + "\n".join(lines))
    assert [(line.number, line.table, line.text) for line in refusal.named] == [
        (3, "nat", "-A T -j ACCEPT"),
        (4, "nat", "-D T -j DROP"),
    ]
    warned = (
        "Warning: Extension recent revision 0 not supported, missing kernel module?\niptables-restore: line 5 failed"
    )
    assert (restore(1, warned).extension, restore(1, warned).named) == ("recent", ())
