"""The templates of nginx's configuration: ours, or those of a folder that the user names."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rulegen.errors import ConfigError
from rulegen.languages.nginx.templates import Templates

PACKAGED: Final = Path(__file__).parents[2] / "nginx_templates"
"""Where the wheel has them; a checkout has them beside the package."""
MAX_BYTES: Final = 1 << 20


def read_templates(folder: str | None = None) -> Templates:
    """Return the templates of a folder, ours by default.

    Raises:
        ConfigError: It holds none, or one cannot be read.
    """
    place = Path(folder) if folder else next((p for p in (PACKAGED, _beside()) if p.is_dir()), PACKAGED)
    try:
        sources = {path.name: path.read_text() for path in sorted(place.glob("*.j2")) if _is_small(path)}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the templates in {place} cannot be read: {error}") from None
    if not sources:
        raise ConfigError(f"there is no template in {place}", hint="copy nginx_templates/ and change the copy")
    return Templates(sources)


def _beside() -> Path:
    return PACKAGED.parents[1] / PACKAGED.name


def _is_small(path: Path) -> bool:
    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_BYTES} bytes: it is no template")
    return True
