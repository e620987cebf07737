"""The warden: ends the process groups of a daemon that has died without doing so.

It runs as a process of its own (``python -I -S warden.py MARKER``), so it imports little and nothing of the package.
On its standard input the daemon writes ``+PID`` for each child it starts and ``-PID`` for each that is gone. When the
input closes, the daemon is gone, and so must be what is left: SIGTERM, two seconds, SIGKILL.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable

MARKER = "MCPTUNNEL_CHILD_OF"
GRACE_SECONDS = 2.0


def signal_group(pid: int, number: int) -> bool:
    """Send signal ``number`` to process group ``pid``. False when there is no such group."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def end_marked(dead: dict[int, str], number: int) -> None:
    """Send ``number`` to what children that have ended left behind.

    Where the system shows environments, only to processes that carry their marker: the number of an empty group may
    belong to somebody else by now. Elsewhere to the group. One look at all processes, however many have ended.

    Args:
        dead: Process id and marker of each.
        number: The signal.
    """
    if os.path.isdir("/proc/self"):
        for left in marked(set(dead.values()).__contains__):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(left, number)
    else:
        for pid in dead:
            signal_group(pid, number)


def marked(wanted: Callable[[str], bool]) -> list[int]:
    """The processes whose marker is ``wanted``. Linux only; empty elsewhere."""
    prefix = f"{MARKER}=".encode()
    found = []
    try:
        entries = os.listdir("/proc")
    except OSError:
        return []
    for entry in entries:
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                with open(f"/proc/{entry}/environ", "rb") as f:
                    at = (b"\0" + f.read()).partition(b"\0" + prefix)[2]
            except OSError:
                continue
            if at and wanted(at.partition(b"\0")[0].decode("utf-8", "replace")):
                found.append(int(entry))
    return found


def _end(groups: set[int], marker: str, number: int) -> bool:
    """Signal whatever is left. False when nothing is."""
    left = False
    for pid in groups:
        left |= signal_group(pid, number)
    for pid in marked(lambda seen: seen.startswith(marker)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
            left = True
    return left


def main(marker: str) -> None:
    """Read births and deaths until the input closes, then end what is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        change, pid = line[:1], int(line[1:])
        if change == "+":
            groups.add(pid)
        else:
            groups.discard(pid)
    if not _end(groups, marker, signal.SIGTERM):
        return
    until = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < until:
        time.sleep(0.05)
        if not _end(groups, marker, 0):
            return
    _end(groups, marker, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
