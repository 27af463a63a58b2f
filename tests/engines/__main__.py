"""rulegen with one more row in its table of ingress engines: `python -m tests.engines plan …`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from rulegen.cli.engines.row import EngineRow
from rulegen.cli.engines.table import ENGINES
from rulegen.cli.main import main
from rulegen.host.doctor.findings import Level
from rulegen.host.doctor.tool import Tool
from rulegen.model.ingress.options import IngressOptions
from tests.engines.engine import TinyCompiler, TinyEngine, TinyRemoval


@dataclass(frozen=True)
class ChosenTiny:
    tiny_dir: str = "tiny"

    @property
    def files(self) -> tuple[str, ...]:
        return ()

    def compiler(self, options: IngressOptions, notes: list[str]) -> TinyCompiler:
        return TinyCompiler(options, notes)

    def engine(self, options: IngressOptions, notes: list[str], *, look: Any, tries_aside: bool) -> TinyEngine:
        return TinyEngine(Path(self.tiny_dir), options, notes, look)

    def removal(self) -> TinyRemoval:
        return TinyRemoval(Path(self.tiny_dir))


ENGINES["tiny"] = EngineRow(
    name="tiny",
    choice=ChosenTiny,
    place=(click.option("--tiny-dir", default="tiny", metavar="DIR", help="Folder of tiny."),),
    export_help="Folder for tiny's configuration.",
    tools=(Tool("tinyd", "--version", "routes of tiny", Level.INFO),),
)

if __name__ == "__main__":
    main()
