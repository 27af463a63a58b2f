"""Kernel parameters below /proc/sys, in the network namespace of the caller."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from rulegen.errors import HostError
from rulegen.safe_files import read_kernel_text

if TYPE_CHECKING:
    from collections.abc import Iterable

_ROOT = Path("/proc/sys")
_MODULES = Path("/sys/module")


def read(name: str) -> str | None:
    """Return the value of a parameter such as `net.ipv4.ip_forward`; None if the kernel does not have it.

    Raises:
        HostError: The parameter exists and cannot be read.
    """
    try:
        return read_kernel_text(_path(name)).strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise HostError(f"sysctl {name} cannot be read: {error.strerror}") from error


def read_all(names: Iterable[str]) -> dict[str, str]:
    """Return the values of the parameters that exist and can be read."""
    values = {}
    for name in names:
        try:
            value = read(name)
        except HostError:
            continue  # not permitted: counts as absent
        if value is not None:
            values[name] = value
    return values


def read_only(names: Iterable[str]) -> frozenset[str]:
    """Return the parameters that no process can set here, because /proc/sys is mounted read-only."""
    return frozenset(name for name in names if _is_read_only(_path(name)))


def _is_read_only(path: Path) -> bool:
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:  # the kernel does not have the parameter
        return False


def write(name: str, value: str) -> None:
    """Set a parameter, and check that the kernel has accepted the value.

    Raises:
        HostError: The kernel does not have the parameter, writing is not permitted, or the value was rejected.
    """
    path = _path(name)
    try:
        path.write_text(f"{value}\n")
    except FileNotFoundError:
        raise HostError(f"sysctl {name}: this kernel has no such setting") from None
    except OSError as error:
        hint = "" if error.errno not in {1, 13, 30} else "run as root, with a writable /proc/sys"
        raise HostError(f"sysctl {name} = {value}: {error.strerror}", hint=hint) from error
    now = read(name)
    if now is not None and now.split() != value.split():
        raise HostError(f"sysctl {name} = {value}: the kernel kept {now}")


def raise_module_parameter(name: str, least: int) -> None:
    """Set a parameter of a kernel module, such as `nf_conntrack/hashsize`, unless its value is as large already.

    Raises:
        HostError: Writing is not permitted.
    """
    module, _, parameter = name.partition("/")
    path = _MODULES / module / "parameters" / parameter
    try:
        if int(read_kernel_text(path)) < least:
            path.write_text(f"{least}\n")
    except FileNotFoundError:
        return  # the module is not loaded: there is nothing to set
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        raise HostError(f"module parameter {name} = {least}: {said}") from error


def _path(name: str) -> Path:
    """Return the file of a parameter. An interface name with a dot is written with a slash: `net.ipv4.conf.eth0/7.x`.

    Raises:
        HostError: `name` would lead out of /proc/sys.
    """
    parts = [part.replace("/", ".") for part in name.split(".")]
    if not all(parts) or any(part.startswith(".") or "\0" in part for part in parts):
        raise HostError(f"{name!r} is not the name of a sysctl")
    return _ROOT.joinpath(*parts)
