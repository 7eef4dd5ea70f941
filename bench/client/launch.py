"""Runs a command, and tells its exit status, seconds, CPU seconds (user and system) and KiB of memory at its peak.

`python launch.py PATIENCE PROGRAM WORD…` kills it after PATIENCE seconds; what it writes goes to stderr. A process of
its own, since Linux counts the size of whoever starts a program for the program's peak: this one is smaller than they.
"""

from __future__ import annotations

import os
import signal
import sys
import time


def main() -> None:
    patience, *command = sys.argv[1:]
    started = time.monotonic()
    child = os.posix_spawn(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.alarm(int(patience))
    _, status, used = os.wait4(child, 0)
    wall = time.monotonic() - started
    print(os.waitstatus_to_exitcode(status), wall, used.ru_utime + used.ru_stime, used.ru_maxrss)


if __name__ == "__main__":
    main()
