"""A certificate for a server on this machine."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def make_certificate(folder: Path, name: str = "IP:127.0.0.1") -> tuple[Path, Path]:
    """Make a certificate for a name that vouches for itself, and return the files of it and of its key."""
    certificate, key = folder / "tls.crt", folder / "tls.key"
    subject = ("-subj", "/CN=fake", "-addext", f"subjectAltName={name}")
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    files = ("-keyout", str(key), "-out", str(certificate))
    subprocess.run(("openssl", "req", "-x509", "-days", "2", *kind, *subject, *files), check=True, capture_output=True)
    return certificate, key
