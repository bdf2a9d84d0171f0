"""The text of a compiled program, read."""

import jax
import jax.numpy as jnp
import pytest

from jaxret.runtime.compiled.hlo import Program, values

TEXT = """HloModule jit_f, is_scheduled=true, num_partitions=4

FileNames
1 "/home/me/script.py"
2 "/lib/jaxret/nn/layers.py"
3 "/lib/flax/linen.py"
4 "/lib/jaxret/nn/attention.py"

FunctionNames
1 "f"

FileLocations
1 {file_name_id=1 function_name_id=1 line=3 end_line=3 column=1 end_column=2}
2 {file_name_id=2 function_name_id=1 line=44 end_line=44 column=1 end_column=2}
3 {file_name_id=3 function_name_id=1 line=9 end_line=9 column=1 end_column=2}
4 {file_name_id=4 function_name_id=1 line=7 end_line=7 column=1 end_column=2}
5 {file_name_id=2 function_name_id=1 line=50 end_line=50 column=1 end_column=2}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=4 parent_frame_id=1}
3 {file_location_id=3 parent_frame_id=5}
4 {file_location_id=5 parent_frame_id=2}
5 {file_location_id=2 parent_frame_id=4}

%condition.1 (c: (s32[], f32[8])) -> pred[] {
  %c = (s32[], f32[8]{0}) parameter(0)
  %limit = s32[] constant(5)
  %count = s32[] get-tuple-element(%c), index=0
  ROOT %less = pred[] compare(%count, %limit), direction=LT
}

%inner.2 (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %twice = f32[8]{0} add(%p, %p)
}

%body.3 (b: (s32[], f32[8])) -> (s32[], f32[8]) {
  %b = (s32[], f32[8]{0}) parameter(0)
  %one = s32[] constant(1)
  %n = s32[] get-tuple-element(%b), index=0
  %next = s32[] add(%n, %one)
  %x = f32[8]{0} get-tuple-element(%b), index=1
  %fused = f32[8]{0} fusion(%x), kind=kLoop, calls=%inner.2, metadata={op_name="jit(f)/while/body/add" stack_frame_id=3}, backend_config={"window_config":{"estimated_cycles":"70"}}
  ROOT %both = (s32[], f32[8]{0}) tuple(%next, %fused)
}

ENTRY %main.4 (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %zero = s32[] constant(0)
  %start = (s32[], f32[8]{0}) tuple(%zero, %a)
  %loop = (s32[], f32[8]{0}) while(%start), condition=%condition.1, body=%body.3
  ROOT %out = f32[8]{0} get-tuple-element(%loop), index=1
}
"""  # noqa: E501


def test_a_loop_runs_as_often_as_its_condition_says():
    program = Program(TEXT)
    times = {instruction.name: times for _, instruction, times in program.run()}
    assert times["loop"] == times["a"] == 1
    assert times["fused"] == times["next"] == 5
    assert "twice" not in times, "what a fusion does is the fusion's"
    assert program.chips == 4


def test_an_instruction():
    program = Program(TEXT)
    fused = program.computations["body.3"].instructions["fused"]
    assert (fused.opcode, fused.operands, fused.cycles) == ("fusion", ("x",), 70)
    assert fused.operation == "jit(f)/while/body/add"
    assert list(program.fused(fused).instructions) == ["p", "twice"]
    assert program.source(fused, "jaxret/") == "jaxret/nn/layers.py:44 (jaxret/nn/attention.py:7)", "and its caller"
    assert program.source(fused, "flax/") == "flax/linen.py:9"
    assert program.source(fused, "elsewhere/") == ""


def test_values():
    (first, second) = values("(bf16[12,64]{1,0:T(8,128)(2,1)S(1)}, /*index=5*/f32[]{:T(128)})")
    assert (first.dtype, first.shape, first.bytes, first.in_hbm) == ("bf16", (12, 64), 1536, False)
    assert (second.shape, second.bytes, second.in_hbm) == ((), 4, True)


def test_a_loop_that_counts_otherwise_is_refused():
    with pytest.raises(ValueError, match=r"condition\.1 does not count up to a constant"):
        list(Program(TEXT.replace("direction=LT", "direction=GT")).run())


def test_a_program_of_this_machine():
    def f(x):
        return jax.lax.scan(lambda y, _: (jnp.sin(y), None), x, None, length=7)[0]

    program = Program(jax.jit(f).lower(jnp.ones((8, 128))).compile().as_text())
    assert 7 in {times for _, _, times in program.run()}
