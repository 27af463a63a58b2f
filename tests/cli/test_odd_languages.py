"""Languages with odd properties: whatever a language cannot do, each command copes with it and says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from rulegen.cli.command_tables import CommandTables
from rulegen.cli.wiring import inputs, planning
from rulegen.compiler.services.attribution import Belongings
from rulegen.errors import HostError
from rulegen.host.dataplane.driver import Culprit, ReadContext, WriteContext
from rulegen.host.dataplane.kernel import KernelDataplane
from rulegen.host.netfilter.variant import Variant, VariantChoice
from rulegen.languages.language import StateKey
from rulegen.model.services.options import Options
from tests.agent.stage import FACTS, NODE, Stage, changed, endpoints, node, service
from tests.cli.options.test_mode import FILES, MODE, OTHERS, Host
from tests.kernels.refusing import Tools
from tests.modes.backend import GATES
from tests.modes.kernel import GateDriver
from tests.modes.language import NAME, ChangeGates, read

REFUSED = "10.96.0.9"


class GateError(HostError):
    """The program refuses a line."""

    def __init__(self, line: str) -> None:
        super().__init__(f"gatectl refuses: {line}")
        self.line = line


class Refusing(GateDriver):
    """Its program refuses to open one gate, and its errors name the Service."""

    def writes(self) -> Mapping[type, Callable[[Any, WriteContext], None]]:
        def write(work: ChangeGates, context: WriteContext) -> None:
            for line in work.lines:
                if line.startswith("open") and f" {REFUSED} " in line:
                    raise GateError(line)
                self.kernel.execute(line)

        return {ChangeGates: write}

    def is_refusal(self, cause: BaseException | None) -> bool:
        return isinstance(cause, GateError)

    def culprits(self, cause: BaseException | None, belongings: Belongings) -> Mapping[str, Culprit]:
        if not isinstance(cause, GateError):
            return {}
        (key,) = read(cause.line.partition(" ")[2], "kernel")
        return {belongings.of_object(NAME, key): Culprit(cause.message)}


class Silent(Refusing):
    """Its program refuses the same gate, and does not say which."""

    def culprits(self, cause: BaseException | None, belongings: Belongings) -> Mapping[str, Culprit]:
        return {}


class Blind(GateDriver):
    """Nobody can look."""

    def read(self, context: ReadContext) -> Any:
        return None

    def states(self, raw: Any, context: ReadContext) -> Mapping[StateKey, Any]:
        return {}


class Failing(GateDriver):
    """Its program fails."""

    def read(self, context: ReadContext) -> Any:
        raise HostError("gatectl: exit code 1")


class Watched(GateDriver):
    """What others write is seen by the text that is read."""

    tells_of_writes = True


@pytest.fixture
def host(tmp_path, capsys, monkeypatch) -> Host:
    monkeypatch.chdir(tmp_path)
    for module in (inputs, planning):
        monkeypatch.setattr(module, "run", Tools(Variant.NFT))
    return Host(tmp_path, capsys)


def with_driver(host: Host, kind: type[GateDriver]) -> GateDriver:
    driver = kind(host.kernel)
    driver.tells_of_writes = getattr(kind, "tells_of_writes", False)
    host.tables = CommandTables(tables=host.tables.tables, drivers={driver.name: driver})
    return driver


def dataplane_of(host: Host, driver: GateDriver, variant: Variant) -> KernelDataplane:
    return KernelDataplane(
        Tools(variant),
        VariantChoice(variant, "for a test"),
        FACTS,
        languages=GATES.languages,
        tables=host.tables.tables,
        drivers={driver.name: driver},
        look=lambda facts: facts,
    )


@pytest.mark.parametrize("kind", [Refusing, Silent])
def test_apply_leaves_out_the_service_that_a_language_refuses(host, kind):
    with_driver(host, kind)
    for _ in range(2):
        code, out = host.run("apply", *FILES, *MODE, "--yes")
        assert (code, "Service demo/shop: gatectl refuses" in out) == (1, True)
        assert host.kernel.connect("tcp", "10.96.0.1", 80) == ("10.244.1.1:8080",)
        assert host.kernel.connect("tcp", REFUSED, 80) == ()


@pytest.mark.parametrize("kind", [Refusing, Silent])
def test_run_leaves_out_the_service_that_a_language_refuses(host, kind):
    driver = with_driver(host, kind)
    stage = Stage(
        mode="gates",
        options=Options(node_name=NODE, needs_of_mode=GATES.needs),
        writer=dataplane_of(host, driver, Variant.NFT),
        tables=host.tables.tables,
    )
    stage.at(0, changed(node()), changed(service("web", 1)), changed(endpoints("web", 1)))
    stage.at(5, changed(service("shop", 9)), changed(endpoints("shop", 9)))
    stage.at(10, changed(service("blog", 99)), changed(endpoints("blog", 99)))
    stage.run(30)
    assert host.kernel.connect("tcp", "10.96.0.99", 80) == ("10.244.1.99:8080",)
    assert host.kernel.connect("tcp", REFUSED, 80) == ()


@pytest.mark.parametrize(
    ("kind", "words"), [(Blind, "gates: cannot be read on this host"), (Failing, "gatectl: exit code 1")]
)
@pytest.mark.parametrize("command", [("plan", *FILES, *MODE), ("apply", *FILES, *MODE, "--yes")])
def test_an_unreadable_language_does_not_count_as_empty(host, kind, words, command):
    host.kernel.file.write_text(OTHERS)
    with_driver(host, kind)
    code, out = host.run(*command)
    assert (code, words in out) == (1, True)
    assert host.kernel.text() == OTHERS


def test_cleanup_of_a_language_that_nobody_can_read_goes_on(host):
    with_driver(host, Blind)
    assert host.run("cleanup", "--yes")[0] == 0


@pytest.mark.parametrize("what", ["out/gates.save", "out"])
def test_a_mode_without_iptables_is_compared_with_its_dumps(host, what):
    host.run("export", *FILES, *MODE, "-o", "out")
    code, out = host.run("plan", *FILES, *MODE, "--observed", what, "--detailed-exitcode")
    assert (code, "No changes" in out) == (0, True)
    (host.folder / "out" / "gates.save").write_text(OTHERS)
    code, out = host.run("plan", *FILES, *MODE, "--observed", what, "--detailed-exitcode")
    assert (code, "Plan: 2 to add, 0 to change, 0 to delete" in out) == (2, True)


def test_a_folder_without_any_dump_is_no_empty_node(host):
    (host.folder / "out").mkdir()
    code, _ = host.run("plan", *FILES, *MODE, "--observed", "out")
    assert code == 1


@pytest.mark.parametrize("variant", list(Variant))
def test_what_others_write_is_seen_whatever_a_driver_reads(host, variant, monkeypatch):
    dataplane = dataplane_of(host, with_driver(host, Watched), variant)
    monkeypatch.setattr(KernelDataplane, "_generation", lambda _self: None)
    mark = dataplane.read().mark
    assert mark is not None
    assert dataplane.is_untouched(mark)
    host.kernel.file.write_text(OTHERS)
    assert not dataplane.is_untouched(mark)
