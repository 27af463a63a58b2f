"""Validates `logging` as kube-proxy does (LoggingConfiguration of component-base). rulegen does not use these options.

Source: https://pkg.go.dev/k8s.io/component-base/logs/api/v1#LoggingConfiguration
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rulegen.errors import Fault
from rulegen.text import described

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FORMATS: Final = ("text", "json")
_MOST: Final = 2**31 - 1


def logging_faults(logging: Mapping[str, Any], gates: Mapping[str, bool]) -> Iterator[Fault]:
    """Yield a fault for each invalid value.

    Args:
        logging: The parsed field.
        gates: The feature gates of the configuration: some options need one.
    """
    form = logging.get("format", "")
    if form not in ("", *FORMATS):
        yield Fault("logging.format", f"{described(form)} is not one of {', '.join(FORMATS)}")
    yield from _verbosity("logging.verbosity", logging.get("verbosity", 0))
    patterns = logging.get("vmodule", [])
    if not isinstance(patterns, list):
        yield Fault("logging.vmodule", f"expected a list, not {described(patterns)}")
    elif patterns and form == "json":
        yield Fault("logging.vmodule", "is for the format text only")
    else:
        for index, pattern in enumerate(patterns):
            yield from _pattern(f"logging.vmodule[{index}]", pattern)
    if not gates.get("LoggingAlphaOptions", gates.get("AllAlpha", False)):
        yield from _alpha_options(logging.get("options", {}))


def _verbosity(path: str, value: object) -> Iterator[Fault]:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST:
        yield Fault(path, f"{described(value)} is not a number from 0 to {_MOST}")


def _pattern(path: str, entry: object) -> Iterator[Fault]:
    pattern = entry.get("filePattern") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(pattern, str) or not pattern:
        yield Fault(path, "expected a filePattern that is not empty, and a verbosity")
        return
    if "=" in pattern or "," in pattern:
        yield Fault(f"{path}.filePattern", f"{described(pattern)} contains '=' or ','")
    yield from _verbosity(f"{path}.verbosity", entry.get("verbosity", 0))


def _alpha_options(options: object) -> Iterator[Fault]:
    if not isinstance(options, dict):
        yield Fault("logging.options", f"expected an object, not {described(options)}")
        return
    for form in FORMATS:
        chosen = options.get(form, {})
        if not isinstance(chosen, dict):
            yield Fault(f"logging.options.{form}", f"expected an object, not {described(chosen)}")
            continue
        for name in ("splitStream", "infoBufferSize"):
            if chosen.get(name) not in (None, False, 0, "0", ""):
                yield Fault(f"logging.options.{form}.{name}", "needs the feature gate LoggingAlphaOptions")
