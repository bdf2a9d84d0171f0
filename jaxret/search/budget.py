"""How much of a corpus may be in memory at a time."""

from __future__ import annotations

from jaxret.errors import InputError

GB = 10**9
LEAST_PART = 2**24
# Compiled programs, what they need besides their arguments, and what a heap does not give back.
PROGRAMS = 3 * 10**8
COPIES = 2  # a part as it is read, and as its arrays are put together


def part_bytes(budget_gb: float | int, others: int, otherwise: str = "ask fewer queries at a time") -> int:
    """Bytes of a part of a corpus that is read at a time.

    Args:
      budget_gb: what the process may hold, in GB.
      others: bytes that will be held besides it and besides what is held now.
      otherwise: as `check_room` takes it.

    Raises:
      InputError: nothing would be left.
    """
    held = check_room(budget_gb, others + COPIES * LEAST_PART, otherwise)
    return (int(budget_gb * GB) - held - PROGRAMS - others) // COPIES


def check_room(budget_gb: float | int, more: int, otherwise: str) -> int:
    """Bytes that the process holds now; raises InputError where so many `more` and its programs pass the budget.

    Args:
      budget_gb: what the process may hold, in GB.
      more: bytes that will be held besides what is held now.
      otherwise: what else the user can do than give more.
    """
    held = resident_bytes()
    needed = (held + PROGRAMS + more) / GB
    if needed > budget_gb:
        problem = f"{budget_gb} GB, where the process holds {held / GB:.2f} GB and a search needs {needed:.2f}"
        raise InputError("memory_budget_gb", problem, f"Give {needed * 1.1:.2f} or more, or {otherwise}.")
    return held


def fits(budget_gb: float | int, corpus: int) -> bool:
    """Whether so many bytes of a corpus may stay on the devices."""
    return resident_bytes() + PROGRAMS + COPIES * corpus <= budget_gb * GB


def resident_bytes() -> int:
    """What this process has in memory now."""
    with open("/proc/self/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024
