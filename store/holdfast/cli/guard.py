"""Becomes the command of `holdfast exec`, after it has asked the kernel to end it together with `holdfast exec`.

It is a program of its own, run by its path, because a request to the kernel for the own process has to be made between
fork and exec, where a process with threads (gRPC has them) must not run Python. It imports nothing of holdfast.

    guard.py PARENT KEEP-LC_CTYPE PATH ARGV…
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
NOT_FOUND, NOT_RUN = 127, 126  # as shells exit


def main(parent: str, keep: str, path: str, *argv: str) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it was killed before the kernel was asked
        os._exit(128 + signal.SIGKILL)
    environment = dict(os.environb)
    if not keep:
        environment.pop(b"LC_CTYPE", None)  # Python sets it if the locale is "C"
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # Python ignores them, and programs inherit that
    try:
        os.execve(path, argv, environment)
    except OSError as error:
        print(f"error: {path} cannot be run: {error.strerror}", file=sys.stderr)
        os._exit(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_RUN)


if __name__ == "__main__":
    main(*sys.argv[1:])
