"""A stage for the tests that serve many Ingresses at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from integration.ingress.features import Stage
    from integration.ingress.lab import IngressLab


@pytest.fixture(scope="session")
def stage(ingress_lab: IngressLab) -> Iterator[Stage]:
    """Give a lab with all who take part."""
    from integration.ingress import features  # noqa: PLC0415 - its certificates need a while to import

    built = features.build(ingress_lab)
    yield built
    built.client.close()
