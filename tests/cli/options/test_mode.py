"""A language and a mode of the tests are rows of tables: rulegen's own commands and the agent serve them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rulegen.cli.command_tables import CommandTables
from rulegen.cli.main import main
from rulegen.cli.wiring import inputs, planning
from rulegen.compiler.tables import Tables
from rulegen.host.dataplane.kernel import KernelDataplane
from rulegen.host.netfilter.variant import Variant, VariantChoice
from rulegen.model.services.options import Options
from tests.agent.stage import FACTS, NODE, Stage, changed, endpoints, node, service
from tests.cli.test_left_out import HOST
from tests.cli.test_left_out import NODE as NODE_YAML
from tests.cli.test_left_out import service as service_yaml
from tests.kernels.refusing import Tools
from tests.modes.backend import GATES
from tests.modes.kernel import GateDriver, GateKernel
from tests.modes.language import Gates

FILES = ("-f", "all.yaml", "--host", "host")
MODE = ("--mode", "gates")
OTHERS = "gate tcp 192.0.2.1 22 > 192.0.2.9:22 by another\n"


class Host:
    """A host whose only dataplane is the one of the tests."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.kernel = GateKernel(folder / "kernel")
        driver = GateDriver(self.kernel)
        tables = Tables(languages={Gates.name: Gates()}, backends={GATES.mode: GATES})
        self.tables = CommandTables(tables=tables, drivers={driver.name: driver})
        (folder / "host").write_text(HOST)
        self.cluster(service_yaml("web", 1), service_yaml("shop", 9))

    def cluster(self, *services: str) -> None:
        (self.folder / "all.yaml").write_text(NODE_YAML + "".join(services))

    def run(self, *words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            main(list(words), self.tables)
        printed = self.capsys.readouterr()
        assert "Traceback" not in printed.err
        return int(stop.value.code or 0), printed.out + printed.err


@pytest.fixture
def host(tmp_path, capsys, monkeypatch) -> Host:
    monkeypatch.chdir(tmp_path)
    for module in (inputs, planning):
        monkeypatch.setattr(module, "run", Tools(Variant.NFT))
    return Host(tmp_path, capsys)


def test_its_services_are_applied_once_and_cleaned_up(host):
    host.kernel.file.write_text(OTHERS)
    code, out = host.run("plan", *FILES, *MODE, "--detailed-exitcode")
    assert (code, "+ gate tcp 10.96.0.1 80" in out) == (2, True)
    assert host.kernel.connect("tcp", "10.96.0.1", 80) == ()
    code, out = host.run("apply", *FILES, *MODE, "--yes")
    assert (code, "Applied: 2 changes" in out) == (0, True)
    assert host.kernel.connect("tcp", "10.96.0.1", 80) == ("10.244.1.1:8080",)
    assert host.run("plan", *FILES, *MODE, "--detailed-exitcode")[0] == 0
    host.cluster(service_yaml("web", 1, ends=(4, 5)))
    assert host.run("apply", *FILES, *MODE, "--yes")[0] == 0
    assert host.kernel.connect("tcp", "10.96.0.1", 80) == ("10.244.1.4:8080", "10.244.1.5:8080")
    assert host.kernel.connect("tcp", "10.96.0.9", 80) == ()
    host.cluster()
    assert host.run("apply", *FILES, *MODE, "--yes", "--allow-empty")[0] == 0
    assert host.kernel.text() == OTHERS


def test_its_export_is_read_back_as_a_dump(host):
    code, out = host.run("export", *FILES, *MODE, "-o", "out")
    assert (code, "out/gates.save" in out) == (0, True)
    host.kernel.file.write_text((host.folder / "out" / "gates.save").read_text())
    assert host.kernel.connect("tcp", "10.96.0.9", 80) == ("10.244.1.9:8080",)
    code, out = host.run("plan", *FILES, *MODE, "--detailed-exitcode", "-o", "json")
    assert (code, json.loads(out)["changes"]) == (0, [])


def test_cleanup_removes_its_objects_and_no_other(host):
    host.kernel.file.write_text(OTHERS)
    host.run("apply", *FILES, *MODE, "--yes")
    code, out = host.run("cleanup", "--yes", "-v")
    assert (code, "- gate tcp 10.96.0.1 80" in out) == (0, True)
    assert host.kernel.text() == OTHERS


def test_a_mode_that_is_not_in_the_table_is_refused(host):
    code, out = host.run("plan", *FILES, "--mode", "iptables")
    assert (code, "gates" in out) == (1, True)


def test_run_writes_one_change_of_a_service(tmp_path, host):
    tables, drivers = host.tables.tables, host.tables.drivers
    options = Options(node_name=NODE, needs_of_mode=GATES.needs)
    choice = VariantChoice(Variant.NFT, "for a test")
    dataplane = KernelDataplane(
        Tools(Variant.NFT), choice, FACTS, languages=GATES.languages, tables=tables, drivers=drivers, look=lambda f: f
    )
    stage = Stage(mode="gates", options=options, writer=dataplane, tables=tables)
    stage.at(0, changed(node()), changed(service("web", 1)), changed(endpoints("web", 1)))
    reached = []
    stage.at(5, lambda: reached.append(host.kernel.connect("tcp", "10.96.0.1", 80)), changed(endpoints("web", 4)))
    stage.run(10)
    assert reached == [("10.244.1.1:8080",)]
    assert host.kernel.connect("tcp", "10.96.0.1", 80) == ("10.244.1.4:8080",)
    assert dataplane.commits == 0
