"""Whole worlds and the files that they become, to be read; each is shown to a real nginx too.

RULEGEN_UPDATE_GOLDEN=1 writes the expected files anew. Files that all worlds share alike stand with the first alone.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from rulegen.compiler.ingress.nginx import NginxSite, compile_ingress
from rulegen.kube.reading.documents import Source
from rulegen.kube.snapshot.build import read_world
from tests.rights import needs_nginx
from tests.strategies.ingresses import SETTINGS, TEMPLATES, options, refusal

FOLDER = Path(__file__).parent / "golden"
WORLDS = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
WITH_MAIN = {"headers", "plain"}
UPDATES = bool(os.environ.get("RULEGEN_UPDATE_GOLDEN"))


def site(name: str) -> NginxSite:
    world = read_world([Source(name, (FOLDER / name / "objects.yaml").read_bytes())])
    assert not world.rejected
    config_map = SETTINGS if SETTINGS in world.config_maps else None
    return compile_ingress(world, options(config_map=config_map), TEMPLATES, served=True)


def shown(name: str, result: NginxSite) -> dict[str, str]:
    """Return the files by names that say what they are for."""
    texts = {}
    for path, text in result.configuration.files.items():
        kind, owner = result.names.get(path, ("", path))
        if kind or name in WITH_MAIN:
            readable = (owner or "every other host").replace("/", " ").replace("*", "any")
            # The digest covers the made-up certificate, which is another each time.
            texts[f"{kind} {readable}.conf" if kind else path] = re.sub(r"\b[0-9a-f]{32}(?=;)", "(digest)", text)
    texts["reasons.txt"] = "".join(f"{reason}\n" for reason in result.model.reasons)
    return texts


@pytest.mark.parametrize("name", WORLDS)
def test_a_world_becomes_these_files(name):
    texts = shown(name, site(name))
    folder = FOLDER / name / "expected"
    if UPDATES:
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        for path, text in texts.items():
            (folder / path).write_text(text, encoding="utf-8")
    assert {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()} == texts


@needs_nginx
@pytest.mark.parametrize("name", WORLDS)
def test_nginx_takes_a_world(name, tmp_path):
    assert refusal(site(name).configuration, tmp_path / "nginx") == ""
