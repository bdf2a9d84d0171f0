"""The text of a compiled XLA program as instructions, each with how often it runs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r" ([a-z][a-z0-9\-]*)\(")
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\](?:\{([^}]*)\})?")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|condition)=%?([\w.\-]+)|branch_computations=\{([^}]*)\}")
BYTES = {"pred": 1, "bf16": 2, "f16": 2, "f32": 4, "f64": 8, "c64": 8, "c128": 16, "token": 0, "opaque": 0} | {
    f"{kind}{bits}": max(1, bits // 8) for kind in "su" for bits in (2, 4, 8, 16, 32, 64)
}


@dataclass(frozen=True)
class Value:
    """One array of an instruction's result.

    Attributes:
      dtype, shape: as XLA writes them.
      layout: the text between braces.
    """

    dtype: str
    shape: tuple[int, ...]
    layout: str

    @property
    def bytes(self) -> int:
        """Without what tiles add; ValueError for an unknown dtype."""
        if self.dtype.startswith("f8"):
            return math.prod(self.shape)
        if self.dtype not in BYTES:
            raise ValueError(f"unknown dtype {self.dtype}")
        return math.prod(self.shape) * BYTES[self.dtype]

    @property
    def in_hbm(self) -> bool:
        """Not in VMEM, nor in any other memory on the chip."""
        return not re.search(r"S\([1-9]\)", self.layout)


def values(text: str) -> tuple[Value, ...]:
    """The arrays in a piece of text: `bf16[8,128]{1,0:T(8,128)}`."""
    return tuple(
        Value(kind, tuple(int(size) for size in shape.split(",") if size), layout or "")
        for kind, shape, layout in _ARRAY.findall(re.sub(r"/\*.*?\*/", "", text))
    )


@dataclass(frozen=True)
class Instruction:
    """One line.

    Attributes:
      name, opcode: as written.
      result: the arrays that it makes.
      operands: names of instructions of the same computation.
      called: names of the computations that it runs.
      rest: what stands behind the operands.
    """

    name: str
    opcode: str
    result: tuple[Value, ...]
    operands: tuple[str, ...]
    called: tuple[str, ...]
    rest: str

    @property
    def cycles(self) -> int:
        """The compiler's estimate; 0 where it gives none."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.rest)
        return int(found[1]) if found else 0

    @property
    def operation(self) -> str:
        """The traced operation that it comes from, `jit(f)/.../dot_general`, or ""."""
        found = re.search(r'op_name="([^"]*)"', self.rest)
        return found[1] if found else ""

    @property
    def frame(self) -> int:
        """The number of its stack frame; 0 for none."""
        found = re.search(r"stack_frame_id=(\d+)", self.rest)
        return int(found[1]) if found else 0


@dataclass
class Computation:
    """Instructions by name, in their order."""

    instructions: dict[str, Instruction] = field(default_factory=dict)
    root: str = ""


class Program:
    """A compiled program.

    Args:
      text: `jax.stages.Compiled.as_text()`.

    Attributes:
      chips: that it runs on together.
    """

    def __init__(self, text: str):
        self.computations: dict[str, Computation] = {}
        self.entry = ""
        current = None
        self._lines = text.splitlines()
        found = re.search(r"num_partitions=(\d+)", self._lines[0])
        self.chips = int(found[1]) if found else 1
        for line in self._lines:
            if header := _HEADER.match(line):
                current = self.computations[header[2]] = Computation()
                self.entry = header[2] if header[1] else self.entry
            elif current is not None and (found := _LINE.match(line)):
                instruction = _instruction(found[2], found[3])
                current.instructions[instruction.name] = instruction
                current.root = instruction.name if found[1] else current.root

    def run(self) -> Iterator[tuple[Computation, Instruction, int]]:
        """Every instruction that runs by itself, with how often; those inside a fusion are the fusion's own.

        Every branch of a conditional counts, as if all were taken.
        """
        yield from self._run(self.entry, 1)

    def fused(self, instruction: Instruction) -> Computation | None:
        """What a fusion does; None for another instruction."""
        return self.computations[instruction.called[0]] if instruction.opcode == "fusion" else None

    def source(self, instruction: Instruction, within: str) -> str:
        """`file:line` of the innermost frame in a file whose path holds `within`, from there on; "" for none.

        Behind it that of the next frame in another such file, the caller, in brackets.
        """
        found = dict[str, str]()
        for path, line in self._frames(instruction.frame):
            if within in path and len(found) < 2:
                file = path[path.index(within) :]
                found.setdefault(file, f"{file}:{line}")
        innermost, *caller = found.values() or [""]
        return f"{innermost} ({caller[0]})" if caller else innermost

    def _frames(self, number: int) -> Iterator[tuple[str, int]]:
        """File and line of a stack's frames, innermost first."""
        files, locations, frames = self._tables
        while number in frames:
            location, parent = frames[number]
            file, line = locations[location]
            yield files[file], line
            if parent == number:
                return
            number = parent

    def _run(self, name: str, times: int) -> Iterator[tuple[Computation, Instruction, int]]:
        computation = self.computations[name]
        for instruction in computation.instructions.values():
            yield computation, instruction, times
            if instruction.opcode == "while":
                condition, body = instruction.called
                yield from self._run(body, times * self._trips(instruction, condition))
            elif instruction.opcode in ("call", "conditional"):
                for called in instruction.called:
                    yield from self._run(called, times)

    def _trips(self, loop: Instruction, condition: str) -> int:
        """How often a loop runs: as it says, or the constant that its condition compares a counter from 0 with.

        Raises:
          ValueError: the condition is another one.
        """
        if known := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.rest):
            return int(known[1])
        found = self.computations[condition].instructions
        compared = found[self.computations[condition].root]
        limits = [
            int(number[1])
            for name in compared.operands
            if found[name].opcode == "constant" and (number := re.match(r"(\d+)\)", found[name].rest))
        ]
        if compared.opcode != "compare" or "direction=LT" not in compared.rest or len(limits) != 1:
            raise ValueError(f"the loop of {condition} does not count up to a constant")
        return limits[0]

    @cached_property
    def _tables(self) -> tuple[dict[int, str], dict[int, tuple[int, int]], dict[int, tuple[int, int]]]:
        """Files, (file, line) of locations, (location, parent) of stack frames, by their numbers."""
        files: dict[int, str] = {}
        locations, frames = dict[int, tuple[int, int]](), dict[int, tuple[int, int]]()
        section = ""
        for line in self._lines:
            if line in ("FileNames", "FunctionNames", "FileLocations", "StackFrames"):
                section = line
            elif section and (found := re.match(r"(\d+) (.*)$", line)):
                number, rest = int(found[1]), found[2]
                numbers = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", rest)}
                if section == "FileNames":
                    files[number] = rest.strip('"')
                elif section == "FileLocations":
                    locations[number] = numbers["file_name_id"], numbers["line"]
                elif section == "StackFrames":
                    frames[number] = numbers["file_location_id"], numbers["parent_frame_id"]
        return files, locations, frames


def _instruction(name: str, text: str) -> Instruction:
    text = re.sub(r"/\*.*?\*/", "", text)
    found = _OPCODE.search(f" {text}")
    if not found:
        raise ValueError(f"not an instruction: {name} = {text[:80]}")
    start = found.end() - 1
    end = _closing(text, start)
    operands = tuple(re.findall(r"%([\w.\-]+)", text[start:end]))
    rest = text[end + 1 :] if operands else text[start:]
    condition = re.search(r"condition=%?([\w.\-]+)", rest)
    body = re.search(r"body=%?([\w.\-]+)", rest)
    if condition and body:
        called: tuple[str, ...] = (condition[1], body[1])
    else:
        called = tuple(
            name.strip().lstrip("%") for one, many in _CALLED.findall(rest) for name in (one or many).split(",")
        )
    return Instruction(name, found[1], values(text[: found.start()]), operands, called, rest)


def _closing(text: str, start: int) -> int:
    """The place of the parenthesis that closes the one before `start`."""
    depth = 1
    for place in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if not depth:
            return place
    raise ValueError(f"a parenthesis is never closed: {text[:80]}")
