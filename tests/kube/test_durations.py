"""Long texts of durations are rejected at once, because the time of the regular expressions is quadratic."""

from __future__ import annotations

import pytest

from rulegen.kube.proxyconfig.durations import MAX_CHARACTERS, parse_duration


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["9" * 1_000_000, "9." * 500_000, "1s" * 500_000, "-" + "0" * 1_000_000 + "s"])
def test_a_text_of_a_million_characters_is_refused_at_once(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration") as refused:
        parse_duration(text)
    assert len(str(refused.value)) < 200


def test_a_text_of_the_maximum_length_is_read() -> None:
    assert parse_duration("1s" * (MAX_CHARACTERS // 2)) == MAX_CHARACTERS // 2
    assert parse_duration("0" * (MAX_CHARACTERS - 1) + "s") == 0
