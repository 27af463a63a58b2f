"""The table of all annotations, collected from the modules that declare them."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from rulegen.model.ingress.values.annotations import access, backend, balancing, headers, logs, routing, tls
from rulegen.model.ingress.values.annotations.annotation import Annotation

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

SECTIONS: Final[Mapping[str, ModuleType]] = MappingProxyType(
    {
        "Where requests go": routing,
        "TLS": tls,
        "Access and limits": access,
        "Headers": headers,
        "The backend": backend,
        "Load balancing and affinity": balancing,
        "Logs": logs,
    }
)
"""Headings in docs/ingress.md, each with the module that declares its annotations."""


def declared_in(module: ModuleType) -> dict[str, Annotation[Any]]:
    """Return the annotations that a module declares, by the name of their constant, in order."""
    return {name: value for name, value in vars(module).items() if isinstance(value, Annotation)}


def collected() -> Mapping[str, Annotation[Any]]:
    """Return all declared annotations by name without the prefix."""
    declared = (annotation for module in SECTIONS.values() for annotation in declared_in(module).values())
    return MappingProxyType({annotation.name: annotation for annotation in declared})


ANNOTATIONS: Final = collected()
"""All supported annotations by name without the prefix."""


def not_obeyed_by(engine: str) -> list[str]:
    """Return the names of the annotations that only other engines apply."""
    return [name for name, annotation in ANNOTATIONS.items() if annotation.only_with not in {"", engine}]
