"""Starts the supervisor of HAProxy: `python -m rulegen.host.haproxy.supervisor DIR HAPROXY [CODE]`."""

import sys
from pathlib import Path

from rulegen.host.haproxy.program import HAPROXY
from rulegen.host.proxy.processes.supervisor import main

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], HAPROXY))
