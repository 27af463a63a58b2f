"""The templates of nginx's configuration: the default ones, or those of a folder that the user names."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rulegen.errors import ConfigError
from rulegen.languages.nginx.templates import Templates
from rulegen.safe_files import UnsuitableFileError, read_within

PACKAGED: Final = Path(__file__).parents[2] / "nginx_templates"
"""Their folder in the wheel; in a checkout it is beside the package."""
MAX_BYTES: Final = 1 << 20
"""The largest size of one template, in bytes."""
MAX_FILES: Final = 100


def read_templates(folder: str | None = None) -> Templates:
    """Return the templates of a folder, by default ours.

    Raises:
        ConfigError: The folder has no template, or one cannot be read.
    """
    place = Path(folder) if folder else next((p for p in (PACKAGED, _beside()) if p.is_dir()), PACKAGED)
    try:
        names = sorted(path.name for path in place.glob("*.j2"))
        if len(names) > MAX_FILES:
            raise ConfigError(
                f"more than {MAX_FILES} templates in {place}", hint="give a folder that has only the templates"
            )
        sources = {name: read_within(place, place / name, MAX_BYTES).decode() for name in names}
    except UnsuitableFileError as error:
        raise ConfigError(f"{error.filename} {error.strerror}: it is not a template") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the templates in {place} cannot be read: {error}") from None
    if not sources:
        raise ConfigError(f"there is no template in {place}", hint="copy nginx_templates/ and change the copy")
    return Templates(sources)


def _beside() -> Path:
    return PACKAGED.parents[1] / PACKAGED.name
