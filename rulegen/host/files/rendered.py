"""Folders whose manifests another tool must render first: kustomize, Helm.

Sources: the kustomization file reference (kubectl.docs.kubernetes.io), Helm's chart file structure (helm.sh).
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.text import printable

if TYPE_CHECKING:
    from pathlib import Path

KUSTOMIZATIONS: Final = frozenset({"kustomization.yaml", "kustomization.yml", "Kustomization"})
CHART: Final = "Chart.yaml"


class Renderer(NamedTuple):
    """A folder that a tool renders.

    Attributes:
        folder: The folder, in printable characters.
        marker: The file that shows the tool.
        command: The shell command that prints the manifests.
        missing: The part that manifests lack without the tool.
    """

    folder: str
    marker: str
    command: str
    missing: str

    def warning(self) -> str:
        """Return a warning with the next step."""
        return (
            f"{self.folder}: {self.marker} is not followed, so {self.missing}; use: {self.command} | rulegen plan -f -"
        )


def rendering_of(file: Path) -> Renderer | None:
    """Return the rendering tool of a folder if the file is the tool's own and no manifest; else None."""
    folder = file.parent
    shown = printable(str(folder), 4096)
    if file.name in KUSTOMIZATIONS:
        missing = "its patches, prefixes, images and generated objects are not applied"
        return Renderer(shown, file.name, f"kubectl kustomize {shlex.quote(shown)}", missing)
    if file.name == CHART or (file.name.startswith("values") and (folder / CHART).is_file()):
        return Renderer(shown, CHART, f"helm template {shlex.quote(shown)}", "its templates are not rendered")
    return None
