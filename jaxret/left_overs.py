"""Temporary names that say whose they are, so that what a killed process left behind can be told and removed."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
from contextlib import suppress
from pathlib import Path


def own_prefix(path: Path) -> str:
    """What the names of this process's temporary files and folders for `path` begin with."""
    return f".{path.name}.{_pid_namespace()}-{os.getpid()}."


def remove_left_overs(path: Path) -> None:
    """Removes temporary files and folders for `path` whose process ran on this host, in this namespace, and ended."""
    name = rf"\.{re.escape(path.name)}\.{_pid_namespace()}-([1-9][0-9]{{0,8}})\.[a-z0-9_]{{8}}"  # as tempfile ends it
    with suppress(OSError):
        for sibling in os.listdir(path.parent):
            if (found := re.fullmatch(name, sibling)) and not _runs(int(found[1])):
                with suppress(OSError):
                    remove(path.parent / sibling)


def remove(path: Path) -> None:
    """Removes a file, a link, or a folder and all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _pid_namespace() -> str:
    """What tells where process ids mean the same: a hash of the host's name and of the namespace's number."""
    try:
        number = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        number = 0
    return hashlib.sha256(f"{socket.gethostname()} {number}".encode()).hexdigest()[:12]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
