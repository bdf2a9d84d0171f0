"""What a compiled program costs a chip: floating-point operations, HBM traffic, collectives, estimated cycles."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import jax

from jaxret.runtime.compiled.hlo import Computation, Instruction, Program, Value

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
KERNEL = 'custom_call_target="tpu_custom_call"'
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call", "conditional")
_LATE = ("copy-done", "slice-done", "all-reduce-done", "all-gather-done", "collective-permute-done", "async-done")
_SLICES = ("dynamic-slice", "slice", "gather")


@dataclass(frozen=True)
class Costs:
    """Of one run, for one chip.

    Attributes:
      flops: of the products: two for each multiplication with a number that is there.
      traffic: bytes that instructions read from and write to HBM.
      collectives: {kind: bytes that a chip sends}, in a ring where all chips of a group take part.
      cycles: {source line: the compiler's estimates}; "" where an instruction has no line.
      kernels: {signature: how often it runs} of the kernels, which have neither operations nor an estimate here.
    """

    flops: int
    traffic: int
    collectives: dict[str, int]
    cycles: dict[str, int]
    kernels: dict[str, int]


def costs(program: Program, within: str = "jaxret/") -> Costs:
    """Adds up every instruction, as often as it runs.

    Args:
      program: compiled.
      within: the part of a path that marks the files whose lines are named.
    """
    flops = traffic = 0
    cycles, moved, kernels, seen = Counter[str](), Counter[str](), Counter[str](), set[str]()
    for computation, instruction, times in program.run():
        flops += times * products(program, computation, instruction)
        traffic += times * traffic_bytes(program, computation, instruction)
        if instruction.cycles:
            cycles[program.source(instruction, within)] += times * instruction.cycles
        if KERNEL in instruction.rest:
            kernels[signature(computation, instruction)] += times
        sent = _sent(program, computation, instruction)
        for kind, channel, size in sent:
            if not channel or channel not in seen:
                moved[kind] += times * size
        seen |= {channel for _, channel, _ in sent}
    return Costs(flops, traffic, dict(moved), dict(cycles), dict(kernels))


def held_bytes(compiled: jax.stages.Compiled) -> int:
    """What a chip must hold at once: arguments, temporaries, and outputs that do not reuse an argument."""
    if (m := compiled.memory_analysis()) is None:
        raise ValueError("the compiler says nothing of this program's memory")
    return m.argument_size_in_bytes + m.temp_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes


def signature(computation: Computation, instruction: Instruction) -> str:
    """What goes into an instruction and comes out, without the layouts."""

    def words(found: Iterable[Value]) -> str:
        return " ".join(f"{value.dtype}[{','.join(map(str, value.shape))}]" for value in found)

    operands = (value for name in instruction.operands for value in computation.instructions[name].result)
    return f"{words(operands)} -> {words(instruction.result)}"


def products(program: Program, computation: Computation, instruction: Instruction) -> int:
    """Floating-point operations of an instruction's matrix products, those inside a fusion too."""
    if inner := program.fused(instruction):
        return sum(products(program, inner, each) for each in inner.instructions.values())
    if instruction.opcode == "dot":
        return _dot_flops(computation, instruction)
    return _convolution_flops(computation, instruction) if instruction.opcode == "convolution" else 0


def traffic_bytes(program: Program, computation: Computation, instruction: Instruction) -> int:
    """Bytes that an instruction reads from and writes to HBM.

    Of an operand that is only sliced the slices count, of a result that is updated in place the update.
    """
    if instruction.opcode in _FREE or instruction.opcode in _LATE:
        return 0
    inner = program.fused(instruction)
    if inner is None:
        return _plain_bytes(computation, instruction)
    parameters = {_number(each): each for each in inner.instructions.values() if each.opcode == "parameter"}
    total = sum(_result_bytes(inner, instruction))
    for number, name in enumerate(instruction.operands):
        for value in computation.instructions[name].result[:1]:
            if value.in_hbm:
                total += _read(inner, parameters[number], value)
    return total


def _plain_bytes(computation: Computation, instruction: Instruction) -> int:
    if instruction.opcode in ("copy-start", "slice-start"):
        moved = instruction.result[1 if instruction.opcode == "slice-start" else 0]
        return sum(moved.bytes for value in instruction.result[:2] if value.in_hbm)
    if instruction.opcode in _SLICES:
        return sum(2 * value.bytes for value in instruction.result if value.in_hbm)
    if instruction.opcode == "dynamic-update-slice":
        update = computation.instructions[instruction.operands[1]].result[0]
        return update.bytes * (update.in_hbm + instruction.result[0].in_hbm)
    sources = (value for name in instruction.operands for value in computation.instructions[name].result)
    return sum(value.bytes for value in (*sources, *instruction.result) if value.in_hbm)


def _result_bytes(inner: Computation, fusion: Instruction) -> list[int]:
    """Bytes that each result of a fusion writes to HBM."""
    root = inner.instructions[inner.root]
    makers = [inner.instructions[name] for name in root.operands] if root.opcode == "tuple" else [root]
    written = []
    for maker, value in zip(makers, fusion.result, strict=False):
        while maker.opcode in ("bitcast", "copy", "reshape") and maker.operands:
            maker = inner.instructions[maker.operands[0]]
        update = inner.instructions[maker.operands[1]].result[0] if maker.opcode == "dynamic-update-slice" else value
        written.append(update.bytes if value.in_hbm else 0)
    return written


def _read(inner: Computation, parameter: Instruction, value: Value) -> int:
    """Bytes that a fusion reads of one operand."""
    users = _users(inner, parameter.name)
    if users and all(user.opcode in _SLICES and user.operands[0] in names for user, names in users):
        return sum(user.result[0].bytes for user, _ in users)
    if users and all(user.opcode == "dynamic-update-slice" and user.operands[0] in names for user, names in users):
        return 0
    return value.bytes


def _users(inner: Computation, name: str) -> list[tuple[Instruction, set[str]]]:
    """What uses a value, through bitcasts, with the names that the value has."""
    names = {name}
    for each in inner.instructions.values():
        if each.opcode == "bitcast" and each.operands[0] in names:
            names.add(each.name)
    return [
        (each, names) for each in inner.instructions.values() if each.opcode != "bitcast" and names & set(each.operands)
    ]


def _number(parameter: Instruction) -> int:
    found = re.match(r"(\d+)\)", parameter.rest)
    if not found:
        raise ValueError(f"parameter {parameter.name} has no number")
    return int(found[1])


def _sent(program: Program, computation: Computation, instruction: Instruction) -> list[tuple[str, str, int]]:
    """(kind, channel, bytes a chip sends) of the collectives of an instruction.

    Those inside fusions are parts of one where they have one channel. Others have "", since they may share one and are
    not the same: in a `shard_map` all have channel 1.
    """
    inner = program.fused(instruction)
    place = inner or computation
    found = []
    for each in inner.instructions.values() if inner else [instruction]:
        kind = each.opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            size = sum(value.bytes for name in each.operands for value in place.instructions[name].result)
            channel = re.search(r"channel_id=\d+", each.rest) if inner else None
            found.append((kind, channel[0] if channel else "", round(size * _hops(kind, _group(program, each)))))
    return found


def _hops(kind: str, chips: int) -> float:
    """How much of what a chip puts in it sends, round a ring of so many chips."""
    share = (chips - 1) / chips
    return {"all-reduce": 2 * share, "all-gather": float(chips - 1), "collective-permute": 1.0}.get(kind, share)


def _group(program: Program, collective: Instruction) -> int:
    """The chips that take part together."""
    text = collective.rest
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", text):
        return found[1].count(",") + 1
    if found := re.search(r"replica_groups=\[\d+,(\d+)\]", text):
        return int(found[1])
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\].*? \{('[^}]*)\}", text):
        sizes = dict(pair.split("=") for pair in found[1].split(","))
        return math.prod(int(sizes[axis]) for axis in found[2].split(","))
    if "replica_groups=" in text and "replica_groups={}" not in text:
        raise ValueError(f"unknown groups of chips: {text[text.index('replica_groups=') :][:80]}")
    return program.chips


def _dot_flops(computation: Computation, dot: Instruction) -> int:
    left = computation.instructions[dot.operands[0]].result[0]
    found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", dot.rest)
    axes = [int(axis) for axis in (found[1] if found else "").split(",") if axis]
    return 2 * math.prod(dot.result[0].shape) * math.prod(left.shape[axis] for axis in axes)


def _convolution_flops(computation: Computation, convolution: Instruction) -> int:
    """TPUs write every product as a convolution, a batched one with dilation; only taps on real elements count."""
    left, right = (computation.instructions[name].result[0].shape for name in convolution.operands)
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", convolution.rest)
    if not labels:
        raise ValueError(f"a convolution without labels: {convolution.name}")
    lhs, rhs, out = labels[1], labels[2], labels[3]
    result = convolution.result[0].shape
    window, taps = _window(convolution.rest), 1
    for axis in (label for label in out if label.isdigit()):
        settings = {name: values[int(axis)] for name, values in window.items()}
        taps *= _taps(left[lhs.index(axis)], right[rhs.index(axis)], result[out.index(axis)], settings)
    return 2 * result[out.index("b")] * result[out.index("f")] * right[rhs.index("i")] * taps


def _window(text: str) -> dict[str, list[str]]:
    found = re.search(r"window=\{([^}]*)\}", text)
    pairs = (each.split("=") for each in found[1].split()) if found else ()
    return {name: values.split("x") for name, values in pairs}


def _taps(size: int, width: int, places: int, settings: dict[str, str]) -> int:
    """How many (output, tap) pairs of one axis meet a real element."""
    step, low = int(settings.get("stride", "1")), int(settings.get("pad", "0").split("_")[0])
    spread, apart = int(settings.get("lhs_dilate", "1")), int(settings.get("rhs_dilate", "1"))
    met = 0
    for place in range(places):
        for tap in range(width):
            at = place * step + tap * apart - low
            met += at % spread == 0 and 0 <= at // spread < size
    return met
