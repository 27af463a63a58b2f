"""One lab for each variant of iptables, driver and worker, built when a test first asks and shared by all that do."""

from __future__ import annotations

import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, NoReturn

import pytest

from integration.blackbox import Rulegen, Variant
from integration.lab.containers import Containers
from integration.lab.lab import Lab, Unavailable, build
from integration.lab.namespaces import Namespaces
from integration.uml.machine import is_inside
from integration.uml.outside import pytest_runtest_protocol, pytest_sessionfinish
from tests.sampling import sample
from tests.sizes import SIZE, Size

if TYPE_CHECKING:
    from integration.ingress.lab import IngressLab
    from integration.ingress.node import Node

__all__ = ["pytest_runtest_protocol", "pytest_sessionfinish"]

IPTABLES: tuple[Variant, ...] = ("nft", "legacy")
NFTABLES: tuple[Variant, ...] = ("nftables", "kube-proxy")
"""The layouts of nftables mode."""
VARIANTS: tuple[Variant, ...] = (*IPTABLES, NFTABLES[0])
"""What tests are run for that do not say more; marks add IPVS, and the other layout of nftables mode."""

DRIVERS = (Namespaces, Containers)

DriverType = type[Namespaces] | type[Containers]
LabMaker = Callable[[DriverType, str], Lab]


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark that narrows a test to some variants."""
    config.addinivalue_line("markers", "variants(*names): the variants that a test is about, if not all")
    config.addinivalue_line("markers", "ipvs: a test that is about IPVS too")
    config.addinivalue_line("markers", "layouts: a test that is about both layouts of nftables mode")
    config.addinivalue_line("markers", "same_rules(n): rules are the same in both variants: n cases for legacy")
    config.addinivalue_line("markers", "of_nftables(n): n cases for nftables mode")
    config.pluginmanager.register(Ordering(), "rulegen-ordering")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what needs which machine, and keep tests that share a lab on one worker (`--dist loadgroup`).

    These tests wait more than they compute. A group is therefore one folder for one variant: the longest group sets how
    long all tests take.
    """
    if SIZE is not Size.FULL:
        _leave_out(config, items)
    here = [item for item in items if item.nodeid.startswith("integration/")]
    for item in here:
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        containers = parameters.get("driver") is Containers
        item.add_marker(pytest.mark.containers if containers else pytest.mark.kernel)
        if parameters.get("variant") == "ipvs":
            item.add_marker(pytest.mark.uml)
        if not item.get_closest_marker("xdist_group"):
            folder = item.nodeid.split("/")[1]
            item.add_marker(pytest.mark.xdist_group(f"{parameters.get('variant', 'nft')} {folder}"))
    places = {name: place for place, name in enumerate(dict.fromkeys(map(_case, here)))}
    for item in here:
        item.stash[_PLACE] = places[_case(item)]


class Ordering:
    """Runs the tests of `integration/` as they are written; a plugin, to come after all others.

    pytest mixes the cases of functions that have a parameter of the session, such as `variant`. Tests that ask for the
    same objects share what is applied only if they follow each other.
    """

    @staticmethod
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
        """Sort after all others have sorted: both families of a case together.

        A worker of xdist begins with what takes long, so that no worker has much left when the others have ended.
        """
        yield
        here = [item for item in items if _PLACE in item.stash]
        others = [item for item in items if _PLACE not in item.stash]
        here.sort(key=lambda item: item.stash[_PLACE])
        if not hasattr(config, "workerinput"):
            items[:] = [*others, *here]
            return
        long = {item.path for item in others if item.get_closest_marker("slow")}
        items[:] = [*here, *sorted(others, key=lambda item: item.path not in long)]


_PLACE = pytest.StashKey[int]()
"""Of a test in this folder, its place in the order of the files; xdist changes its name later."""


def _case(item: pytest.Item) -> str:
    """Return a test's name without its family."""
    return re.sub(r"\bv[46]\b", "v", item.nodeid)


def _leave_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out cases of tests with the marks `same_rules` and `of_nftables`: the same ones each time."""
    left_out: set[str] = set()
    for name, variants in (("same_rules", IPTABLES[1:]), ("of_nftables", NFTABLES)):
        for number, cases in _marked_cases(items, name, variants).items():
            left_out |= set(cases) - sample(cases, number)
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in left_out])
    items[:] = [item for item in items if item.nodeid not in left_out]


def _marked_cases(items: list[pytest.Item], name: str, variants: tuple[Variant, ...]) -> dict[int, list[str]]:
    """Return the cases for some variants of tests with a mark, by the number of its argument."""
    cases: defaultdict[int, list[str]] = defaultdict(list)
    for item in items:
        mark = item.get_closest_marker(name)
        if mark and isinstance(item, pytest.Function) and item.callspec.params.get("variant") in variants:
            cases[mark.args[0]].append(item.nodeid)
    return cases


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test for each variant, each family and each driver that it asks for by name."""
    if "variant" in metafunc.fixturenames:
        only = metafunc.definition.get_closest_marker("variants")
        variants = only.args if only else VARIANTS
        if not only and metafunc.definition.get_closest_marker("layouts"):
            variants = (*variants, NFTABLES[1])
        if metafunc.definition.get_closest_marker("ipvs"):
            # Inside the user-mode Linux nobody asks for the other cases.
            variants = ("ipvs",) if is_inside() else (*variants, "ipvs")
        metafunc.parametrize("variant", variants, scope="session")
    if "family" in metafunc.fixturenames:
        metafunc.parametrize("family", (4, 6), ids=("v4", "v6"))
    if "driver" in metafunc.fixturenames:
        metafunc.parametrize("driver", DRIVERS, ids=lambda driver: driver.name, scope="session")


@pytest.fixture(scope="session")
def labs() -> Iterator[LabMaker]:
    """Give a lab by driver and name, building it at the first request."""
    with ExitStack() as stack:
        built: dict[tuple[str, str], Lab] = {}

        def get(driver: type[Namespaces | Containers], name: str) -> Lab:
            if (driver.name, name) not in built:
                built[driver.name, name] = stack.enter_context(build(_made(driver)))
            return built[driver.name, name]

        yield get


def _made(driver: DriverType) -> Namespaces | Containers:
    missing = [tool for tool in ("iptables-nft", "iptables-legacy", "conntrack") if not shutil.which(tool)]
    if missing:
        _do_without(driver, f"not installed: {', '.join(missing)}")
    try:
        return driver()
    except Unavailable as reason:
        _do_without(driver, str(reason))


def _do_without(driver: DriverType, reason: str) -> NoReturn:
    if driver is Containers and os.environ.get("RULEGEN_REQUIRE_CONTAINERS") == "1":
        pytest.fail(f"containers are required here (RULEGEN_REQUIRE_CONTAINERS=1): {reason}")
    pytest.skip(f"{driver.name}: {reason}")


@pytest.fixture(scope="session")
def ingress_lab() -> Iterator[IngressLab]:
    """Give a lab whose node serves Ingresses; each worker has its own."""
    from integration.ingress import lab as ingress  # noqa: PLC0415 - its certificates need a while to import

    with ExitStack() as stack:
        try:
            built = stack.enter_context(ingress.build())
        except Unavailable as reason:
            pytest.skip(f"no lab for Ingresses: {reason}")
        yield built


@pytest.fixture
def ingress_node(ingress_lab: IngressLab) -> Node:
    """Give the node of that lab, whose nginx all tests share that leave it as they found it."""
    return ingress_lab.occupy(ingress_lab.node)


@pytest.fixture(scope="session")
def rulegens() -> dict[tuple[int, str], Rulegen]:
    """Remember what each lab's node serves."""
    return {}


@pytest.fixture
def lab(labs: LabMaker, variant: Variant) -> Lab:
    """Give the lab of bare namespaces for a variant."""
    return labs(Namespaces, variant)


@pytest.fixture
def rulegen(lab: Lab, variant: Variant, rulegens: dict[tuple[int, str], Rulegen]) -> Rulegen:
    """Give rulegen on the lab's node."""
    return rulegens.setdefault((id(lab), variant), Rulegen(lab, variant))
