"""Secrets and ConfigMaps that are read by name, of a server whose pages have no end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from rulegen.apiserver.budget import Kept
from rulegen.apiserver.limits import ApiTerms
from rulegen.apiserver.referred import reading
from rulegen.apiserver.referred.order import Batch, Group
from rulegen.apiserver.referred.reading import ObjectReader
from rulegen.apiserver.transport.failures import ApiError
from rulegen.apiserver.watching.revision import Revisions
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.objects.structs import Secret
from tests.apiserver.watching import fast


class Pages:
    """A server that has another page each time, and the same Secrets on each."""

    url = "https://server"

    def __init__(self, names: list[str]) -> None:
        items = [{"metadata": {"namespace": "team", "name": name, "resourceVersion": "5"}} for name in names]
        self.page = {"kind": "SecretList", "items": items * 10}
        self.asked = 0

    def ask(self, *_: object, **__: object) -> Pages:
        self.asked += 1
        return self

    def body(self, _: int) -> bytearray:
        metadata = {"resourceVersion": "7", "continue": f"page {self.asked}"}
        return bytearray(json.dumps({**self.page, "metadata": metadata}).encode())

    def close(self) -> None:
        pass


class TestPages:
    """A server that ignores what it is asked for, and whose pages have no end."""

    WANTED = ObjectName("team", "a")

    @pytest.fixture
    def read(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ObjectReader]:
        monkeypatch.setattr(reading, "MAX_PAGES", 20)

        def reader(*names: str) -> ObjectReader:
            return ObjectReader(Pages([*names]), Kept(ApiTerms()), Revisions(time.monotonic, lambda *_: None), fast())

        return reader

    def test_an_object_on_each_page_is_kept_once(self, read):
        answers = read("a", "b").read(Batch(Group(Secret, "team"), frozenset({self.WANTED}), is_bulk=False))
        assert [each.head.name for each in answers.there] == [self.WANTED]

    def test_an_object_on_none_of_them_is_not_read_again_at_once(self, read):
        """Nor is it told to be gone."""
        with pytest.raises(ApiError, match="more than 20 pages"):
            read("b").read(Batch(Group(Secret, "team"), frozenset({self.WANTED}), is_bulk=False))

    def test_names_without_end_are_no_list(self, read):
        with pytest.raises(ApiError, match="more than 20 pages"):
            read("a").heads(Secret, "", lambda _: True)
