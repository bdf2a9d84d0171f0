"""A picture of what search costs over the passages: time on the left, memory on the right."""

from collections.abc import Mapping, Sequence
from pathlib import Path


def plot(
    path: Path,
    passages: Sequence[int],
    times: Mapping[str, Sequence[float]],
    memory: Mapping[str, Sequence[float]],
    *,
    unit: str,
    budget: float,
    of: str,
) -> None:
    """Writes it.

    Args:
      path: the image.
      passages: how many, of each measurement.
      times: by their names, in `unit`.
      memory: by their names, in GB.
      unit: of the left axis.
      budget: the memory budget, in GB.
      of: what the passages are.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    time_axes, memory_axes = figure.subplots(1, 2)
    for name, values in times.items():
        time_axes.loglog(passages, values, marker="o", label=name)
    time_axes.set_ylabel(unit)
    for name, values in memory.items():
        memory_axes.semilogx(passages, values, marker="o", label=name)
    memory_axes.axhline(budget, linestyle="--", color="gray", label="memory_budget_gb")
    memory_axes.set_ylim(0, 1.2 * max([budget, *(max(values) for values in memory.values())]))
    memory_axes.set_ylabel("GB")
    for axes in (time_axes, memory_axes):
        axes.set_xlabel(f"passages of {of}")
        axes.grid(alpha=0.3)
        if len(axes.get_lines()) > 1:
            axes.legend()
    figure.savefig(path, dpi=150)
