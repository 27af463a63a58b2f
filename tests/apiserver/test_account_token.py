"""A token that nginx's workers could read is told."""

from __future__ import annotations

import pytest

from rulegen.apiserver.transport.account_token import exposure


@pytest.mark.parametrize(("mode", "is_told"), [(0o600, False), (0o400, False), (0o640, True), (0o644, True)])
def test_a_token_readable_by_others_is_reported(tmp_path, mode, is_told):
    token = tmp_path / "token"
    token.write_text("secret")
    token.chmod(mode)

    assert bool(exposure(token)) == is_told
    assert is_told == (f"mode {mode:04o}" in exposure(token))


def test_without_a_token_nothing_is_reported(tmp_path):
    assert exposure(tmp_path / "token") == ""
