"""The order in which objects that Ingresses refer to are read, and what is taken of an answer."""

from __future__ import annotations

import json

import pytest

from rulegen.apiserver.referred import selection
from rulegen.apiserver.referred.order import BULK, Batch, Group, Key, ReadingOrder
from rulegen.apiserver.transport.failures import ApiError
from rulegen.apiserver.transport.reasons import ApiReason
from rulegen.kube.objects.events import Changed
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.objects.structs import Secret


class TestOrder:
    A, B = (Key(Secret, ObjectName("team", name)) for name in "ab")

    def test_an_object_is_never_read_twice_at_a_time(self):
        order = ReadingOrder()
        order.add(self.A)
        batch = order.take(0.0)
        order.add(self.A)
        assert order.take(0.0) is None
        order.done(batch)
        assert order.take(0.0) == batch

    def test_namespaces_take_turns(self):
        order = ReadingOrder()
        many = [Key(Secret, ObjectName("greedy", f"s{number}")) for number in range(BULK - 1)]
        for key in (*many, self.A):
            order.add(key)
        assert [order.take(0.0).group.namespace for _ in range(3)] == ["greedy", "team", "greedy"]

    def test_a_pause_ends_by_its_time_or_by_a_change(self):
        order = ReadingOrder()
        order.put_off(self.A, 5.0)
        order.put_off(self.B, 7.0)
        assert order.take(4.9) is None
        assert order.next_at() == 5.0
        order.add(self.B)
        assert order.take(0.0) == Batch(Group(Secret, "team"), frozenset({self.B.name}), is_bulk=False)
        assert order.take(5.0) == Batch(Group(Secret, "team"), frozenset({self.A.name}), is_bulk=False)
        assert order.next_at() == float("inf")

    def test_a_namespace_that_may_not_be_listed_is_read_singly(self):
        order = ReadingOrder()
        keys = [Key(Secret, ObjectName("team", f"s{number}")) for number in range(BULK)]
        for key in keys:
            order.add(key)
        order.read_singly(keys[0].group, 10.0)
        assert len(order.take(9.0).names) == 1
        order.add(keys[0])
        order.add(Key(Secret, ObjectName("team", "more")))
        assert order.take(10.0).is_bulk


class TestSelection:
    @pytest.mark.parametrize(
        "text",
        [
            b"",
            b"{}",
            b"null",
            b"[]",
            b'{"kind":"PodList","metadata":{"resourceVersion":"7"}}',
            b'{"kind":"SecretList"}',
        ],
    )
    @pytest.mark.parametrize("read", [selection.read_heads, selection.read_selected])
    def test_what_is_no_list_is_not_an_empty_one(self, read, text):
        with pytest.raises(ApiError, match="https://server"):
            read("https://server", Secret, text, lambda _: True)

    def test_a_page_of_too_many_values_is_refused(self):
        items = ",".join(["{}"] * 1_600_000)
        text = f'{{"kind":"SecretList","metadata":{{"resourceVersion":"7"}},"items":[{items}]}}'.encode()
        with pytest.raises(ApiError, match="more than 1500000 values") as caught:
            selection.read_heads("https://server", Secret, text, lambda _: True)
        assert caught.value.reason is ApiReason.TOO_LARGE

    def test_only_what_is_wanted_is_returned(self):
        items = [{"metadata": {"namespace": "team", "name": name, "resourceVersion": "5"}} for name in "abc"]
        page = {"kind": "SecretList", "metadata": {"resourceVersion": "7", "continue": "more"}, "items": items}
        raw = json.dumps(page).encode()
        wanted = ObjectName("team", "b")
        head, heads = selection.read_heads("https://server", Secret, raw, wanted.__eq__)
        assert (head, heads) == (("7", "more"), [(wanted, "5")])
        _, (selected,) = selection.read_selected("https://server", Secret, raw, wanted.__eq__)
        assert selected.head.name == wanted
        assert Changed(Secret, selected.state, wanted).state.object.metadata.name == "b"

    @pytest.mark.parametrize("read", [selection.read_heads, selection.read_selected])
    def test_a_version_that_is_none_is_not_kept(self, read):
        """It is kept for each object, and counts nowhere."""
        item = {"metadata": {"namespace": "team", "name": "a", "resourceVersion": "9" * 100_000}}
        page = {"kind": "SecretList", "metadata": {"resourceVersion": "7"}, "items": [item]}
        _, [each] = read("https://server", Secret, json.dumps(page).encode(), lambda _: True)
        assert (each if isinstance(each, selection.ObjectHead) else each.head).version == ""
        line = json.dumps({"type": "MODIFIED", "object": item}).encode()
        assert selection.read_changed("https://server", Secret, line).version == ""
        page["metadata"]["resourceVersion"] = "9" * 100_000
        with pytest.raises(ApiError, match="expected a SecretList with a resourceVersion"):
            read("https://server", Secret, json.dumps(page).encode(), lambda _: True)
