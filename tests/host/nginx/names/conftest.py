"""A name server in a namespace of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.host.nginx.names.name_server import NameServer


@pytest.fixture
def server(namespace: None) -> Iterator[NameServer]:
    made = NameServer()
    yield made
    made.close()
