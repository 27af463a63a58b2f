"""The first process of the node: it gives the node what it must not share with this machine, and sees off orphans.

Started as `python init.py RESOLV_CONF ARGV...`. A daemon whose parent has ended becomes the child of this process:
where nobody waits for those, a killed one would seem to be there for ever.
"""

from __future__ import annotations

import os
import subprocess
import sys


def main(resolv_conf: str, argv: list[str]) -> int:
    """Run a program until its end, and with it the node."""
    for mount in (["--bind", resolv_conf, "/etc/resolv.conf"], ["-t", "tmpfs", "-o", "mode=755", "run", "/run"]):
        subprocess.run(["mount", *mount], check=True)
    child = os.fork()
    if child == 0:
        os.execv(argv[0], argv)
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
