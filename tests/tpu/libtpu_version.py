"""Prints the version of libtpu that the installed jax asks for."""

import re
from importlib.metadata import requires

print(
    next(match[1] for line in requires("jax") or [] if (match := re.match(r"libtpu==([\d.*]+)", line.replace(" ", ""))))
)
