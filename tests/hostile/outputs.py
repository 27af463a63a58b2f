"""Commands with hostile text, and what of it must not be printed."""

from __future__ import annotations

import gc
import io
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from rulegen.cli.main import main
from tests.sizes import examples

FEW = settings(
    max_examples=examples(5),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
CATEGORIES = {"Cc", "Cf", "Zl", "Zp", "Cs"}
NODE = "---\n{apiVersion: v1, kind: Node, metadata: {name: node1}}\n"
WORST = "a\x1b[2J\x9b31m\x07\x00\x7f\x85\u00ad\u061c\u200b\u200e\u2028\u2029\u202e\u2066\ufeff\U000e0041z"
"""A bit of each: ESC and C1, which command; marks of direction; characters without width; separators; a tag."""
TEXTS = st.text(
    st.sampled_from(
        [*map(chr, [*range(1, 32), *range(127, 160), *range(0x2000, 0x2070)]), *"a\x1b[;m]é😀\ufeff\U000e0041"]
    ),
    min_size=1,
    max_size=20,
)


def left(text: str) -> list[str]:
    """Return what must not leave."""
    return [hex(ord(c)) for c in text if unicodedata.category(c) in CATEGORIES and c not in "\n\t"]


class Said(NamedTuple):
    code: int
    out: str
    err: str


@contextmanager
def streams() -> Iterator[tuple[io.TextIOWrapper, io.TextIOWrapper]]:
    both = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", both[0])
        patch.setattr("sys.stderr", both[1])
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
        yield both


def run(*words: str) -> Said:
    """Run a command and return what it printed; its bytes are UTF-8."""
    try:
        with streams() as (out, err), pytest.raises(SystemExit) as stop:
            main(list(words))
        out.flush()
        err.flush()
        printed = (out.buffer.getvalue().decode(), err.buffer.getvalue().decode())
    finally:
        gc.enable()
    return Said(stop.value.code or 0, *printed)


def judge(said: Said) -> None:
    assert "Traceback" not in said.err
    assert left(said.out) == []
    assert left(said.err) == []
