"""Which iptables a host uses: on real kernels, and on hosts that lack one of the tools."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rulegen.errors import HostError
from rulegen.host.commands.runner import Command, Completed, MissingToolError, run
from rulegen.host.netfilter.variant import HINT_CHAINS, OWN_CHAIN, NoVariantError, Variant, call, choose
from rulegen.host.nftables.without_iptables import chosen
from rulegen.languages.iptables.language import NAME as IPTABLES
from rulegen.net import Family

if TYPE_CHECKING:
    from collections.abc import Callable

TOOL = {Family.IPV4: "iptables", Family.IPV6: "ip6tables"}


def add_chain(variant: Variant, family: Family, table: str, chain: str) -> None:
    assert run(Command((f"{TOOL[family]}-{variant}", "-w", "-t", table, "-N", chain))).code == 0


@pytest.mark.usefixtures("namespace")
class TestKernel:
    def test_nothing_there_is_nft(self):
        choice = choose(run)

        assert choice.variant is Variant.NFT
        assert "neither variant" in choice.reason

    @pytest.mark.parametrize("hint", HINT_CHAINS)
    def test_a_hint_decides(self, variant, family, hint):
        add_chain(variant, family, "mangle", hint)
        add_chain(variant.other, family, "nat", OWN_CHAIN)

        choice = choose(run)

        assert choice.variant is variant
        assert hint in choice.reason

    def test_hints_in_both_are_nft(self):
        for variant in Variant:
            add_chain(variant, Family.IPV4, "mangle", HINT_CHAINS[0])

        assert choose(run).variant is Variant.NFT

    def test_a_longer_name_is_no_hint(self):
        add_chain(Variant.LEGACY, Family.IPV4, "mangle", f"{HINT_CHAINS[0]}-NO")

        assert choose(run).variant is Variant.NFT

    def test_legacy_hints_count_in_every_table(self):
        add_chain(Variant.LEGACY, Family.IPV4, "filter", HINT_CHAINS[0])

        assert choose(run).variant is Variant.LEGACY

    def test_without_hints_our_own_chains_decide(self, variant, family):
        add_chain(variant, family, "nat", OWN_CHAIN)

        assert choose(run).variant is variant

    def test_our_own_chains_in_both_are_nft(self):
        for variant in Variant:
            add_chain(variant, Family.IPV4, "nat", OWN_CHAIN)

        choice = choose(run)

        assert choice.variant is Variant.NFT
        assert "both variants" in choice.reason

    def test_looking_creates_nothing(self):
        choose(run)

        assert run(Command(("nft", "list", "ruleset"))).stdout == ""
        assert run(Command(("iptables-legacy-save",))).stdout == ""

    def test_forced(self, variant):
        add_chain(variant.other, Family.IPV4, "mangle", HINT_CHAINS[0])

        assert choose(run, variant).variant is variant


DRIVERS = {IPTABLES: "rules", "other": "objects"}


@pytest.mark.usefixtures("namespace")
class TestWithoutTools:
    """A mode that writes no rules of iptables, on a host that has no tool of it."""

    def test_nothing_is_looked_for(self):
        choice, drivers = chosen(host_with({}), None, DRIVERS, ["other"])

        assert "iptables is not installed" in choice.reason
        assert set(drivers) == {"other"}

    def test_tools_of_one_family_are_used(self, family):
        name = f"{TOOL[family]}-nft"
        tools = {f"{name}-save": plain("iptables v1.8.9 (nf_tables)"), name: Completed(1)}
        choice, drivers = chosen(
            host_with({**tools, f"{name}-restore": tools[f"{name}-save"]}), None, DRIVERS, ["other"]
        )

        assert choice.variant is Variant.NFT
        assert set(drivers) == set(DRIVERS)

    def test_a_mode_that_needs_it_waits(self):
        with pytest.raises(HostError, match="is not installed"):
            chosen(host_with({}), None, DRIVERS, [IPTABLES])

    def test_rules_of_a_proxy_must_be_removed_first(self, variant, family):
        add_chain(variant, family, "nat", OWN_CHAIN)

        with pytest.raises(HostError, match="is not installed"):
            chosen(host_with({}), None, DRIVERS, ["other"])


def host_with(tools: dict[str, Completed | Callable[[Command], Completed]]) -> Callable[[Command], Completed]:
    """Return a runner of a host that has these tools alone."""

    def answer(command: Command) -> Completed:
        if command.argv[0] not in tools:
            raise MissingToolError(command.argv[0])
        canned = tools[command.argv[0]]
        return canned if isinstance(canned, Completed) else canned(command)

    return answer


def plain(version: str) -> Callable[[Command], Completed]:
    return lambda command: Completed(0, f"{version}\n" if "--version" in command.argv else "")


class TestTools:
    def test_none(self):
        with pytest.raises(HostError, match="is not installed") as caught:
            choose(host_with({}))
        assert "install the package iptables" in caught.value.hint

    def test_legacy_alone(self):
        choice = choose(host_with({"iptables-legacy-save": Completed(0), "ip6tables-legacy-save": Completed(0)}))

        assert choice.variant is Variant.LEGACY
        assert choice.reason == "iptables-nft-save is not installed"

    @pytest.mark.parametrize(
        ("version", "expected"),
        [
            ("iptables-save v1.8.9 (nf_tables)", Variant.NFT),
            ("iptables-save v1.8.9 (legacy)", Variant.LEGACY),
            ("iptables-save v1.6.1", Variant.LEGACY),
        ],
    )
    def test_the_plain_tool_says_which_it_is(self, version, expected):
        host = host_with({"iptables-save": plain(version), "iptables": plain(version)})

        assert choose(host).variant is expected
        assert call(host, expected, Family.IPV4, "save").code == 0
        with pytest.raises(MissingToolError):
            call(host, expected.other, Family.IPV4, "save")

    def test_a_kernel_without_nf_tables(self):
        refused = Completed(
            1, "", "iptables-nft-save v1.8.9 (nf_tables): Could not fetch rule set generation id: Inval\n"
        )
        choice = choose(host_with({"iptables-nft-save": refused, "iptables-legacy-save": Completed(0)}))

        assert choice.variant is Variant.LEGACY
        assert "iptables-nft does not work here" in choice.reason

    @pytest.mark.parametrize(
        "failure",
        [
            Completed(1),
            Completed(4, "", "iptables-nft-save: RULE_APPEND failed (Device or resource busy)"),
            Completed(-9, "", "half a line"),
            Completed(137, "", "Killed"),
        ],
        ids=["no reason", "busy", "signal", "signal in a shell"],
    )
    def test_a_failure_of_the_moment_chooses_no_other_variant(self, failure):
        with pytest.raises(NoVariantError, match="iptables-nft does not work now"):
            choose(host_with({"iptables-nft-save": failure, "iptables-legacy-save": Completed(0)}))

    def test_a_kernel_without_ipv6(self):
        tools = {"iptables-nft-save": Completed(0), "iptables-nft": Completed(1), "iptables-legacy-save": Completed(0)}
        for name in ("ip6tables-nft-save", "ip6tables-legacy-save"):
            tools[name] = Completed(3, "", "Address family not supported by protocol")

        assert choose(host_with(tools)).variant is Variant.NFT

    def test_without_privilege_nothing_is_guessed(self):
        refused = Completed(4, "", "Could not fetch rule set generation id: Permission denied (you must be root)")
        with pytest.raises(HostError) as caught:
            choose(host_with({"iptables-nft-save": refused, "iptables-legacy-save": Completed(0)}))
        assert "CAP_NET_ADMIN" in caught.value.hint

    def test_forced_without_tools(self):
        with pytest.raises(MissingToolError):
            choose(host_with({"iptables-nft-save": Completed(0)}), Variant.LEGACY)
