"""The folder with the manifests of the demo: `deploy/examples`, which the package contains."""

from __future__ import annotations

from pathlib import Path

from rulegen.errors import HostError

_HERE = Path(__file__).resolve().parent
_INSTALLED = _HERE / "manifests"
_CHECKOUT = _HERE.parents[1] / "deploy" / "examples"


def folder() -> Path:
    """Return the folder with the examples.

    Raises:
        HostError: It is in neither place.
    """
    for place in (_INSTALLED, _CHECKOUT):
        if place.is_dir():
            return place
    raise HostError(f"no example manifests in {_INSTALLED}", hint="install rulegen again")
