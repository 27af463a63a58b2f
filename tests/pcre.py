"""PCRE2, the library that nginx matches with, asked directly."""

from __future__ import annotations

import ctypes
import functools
from ctypes.util import find_library
from typing import Self

import pytest

CASELESS = 0x00000008
MATCH_LIMIT = -47
_TOO_LARGE = 120


@functools.cache
def _library() -> ctypes.CDLL:
    name = find_library("pcre2-8")
    if name is None:
        pytest.skip("needs libpcre2-8")
    loaded = ctypes.CDLL(name)
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    for function, result, arguments in (
        ("compile", pointer, (ctypes.c_char_p, size, ctypes.c_uint32, pointer, pointer, pointer)),
        ("code_free", None, (pointer,)),
        ("match_data_create_from_pattern", pointer, (pointer, pointer)),
        ("match_data_free", None, (pointer,)),
        ("match_context_create", pointer, (pointer,)),
        ("match_context_free", None, (pointer,)),
        ("set_match_limit", ctypes.c_int, (pointer, ctypes.c_uint32)),
        ("match", ctypes.c_int, (pointer, ctypes.c_char_p, size, size, ctypes.c_uint32, pointer, pointer)),
    ):
        called = getattr(loaded, f"pcre2_{function}_8")
        called.restype, called.argtypes = result, arguments
    return loaded


class Pattern:
    """A compiled expression; `error` is PCRE2's number, 0 where there is none."""

    def __init__(self, text: str) -> None:
        raw, error, offset = text.encode(), ctypes.c_int(), ctypes.c_size_t()
        self._code = _library().pcre2_compile_8(
            raw, len(raw), CASELESS, ctypes.byref(error), ctypes.byref(offset), None
        )
        self.error = 0 if self._code else error.value

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._code:
            _library().pcre2_code_free_8(self._code)

    def match(self, subject: str, limit: int = 10_000_000) -> int:
        """Return PCRE2's result: more than 0 for a match, -1 for none, MATCH_LIMIT where it took too many steps."""
        library, raw = _library(), subject.encode()
        match_data = library.pcre2_match_data_create_from_pattern_8(self._code, None)
        context = library.pcre2_match_context_create_8(None)
        library.pcre2_set_match_limit_8(context, limit)
        try:
            result: int = library.pcre2_match_8(self._code, raw, len(raw), 0, 0, match_data, context)
        finally:
            library.pcre2_match_context_free_8(context)
            library.pcre2_match_data_free_8(match_data)
        return result
