"""Logs."""

from __future__ import annotations

from typing import Final

from rulegen.model.ingress.values.annotations.annotation import Annotation
from rulegen.model.ingress.values.readers import boolean

ENABLE_ACCESS_LOG: Final = Annotation("enable-access-log", boolean, "`true`, `false`", default=True)
ENABLE_REWRITE_LOG: Final = Annotation("enable-rewrite-log", boolean, "`true`, `false`", default=False)
