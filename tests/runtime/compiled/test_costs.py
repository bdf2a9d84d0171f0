"""Operations, traffic and collectives of compiled programs, against counts by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxret.runtime.compiled.costs import costs, products, traffic_bytes
from jaxret.runtime.compiled.hlo import Program
from jaxret.runtime.mesh import device_mesh


def program(*lines, fused=()):
    """The costs' view of a few lines: the program, its main computation and the last instruction."""
    inner = ["%inner (p: f32[1]) -> f32[1] {", *(f"  {line}" for line in fused), "}", ""] if fused else []
    text = ["HloModule m, num_partitions=16", "", *inner, "ENTRY %main () -> f32[1] {", *(f"  {x}" for x in lines), "}"]
    found = Program("\n".join(text))
    main = found.computations["main"]
    return found, main, list(main.instructions.values())[-1]


def test_a_scanned_product_counts_each_time():
    def f(x, kernels):
        return jax.lax.scan(lambda y, kernel: (jnp.tanh(y @ kernel), None), x, kernels)[0]

    text = jax.jit(f).lower(jnp.ones((32, 16)), jnp.ones((5, 16, 16))).compile().as_text()
    assert costs(Program(text)).flops == 5 * 2 * 32 * 16 * 16


@pytest.mark.parametrize(
    ("left", "right", "out", "rest", "flops"),
    [
        ("8,256,768", "768,3072,1", "8,256,3072", "window={size=1}, dim_labels=0bf_io0->0bf", 8 * 256 * 768 * 3072),
        (  # a batched product, as TPUs write it: each output meets one tap
            "4,3,128,64",
            "4,3,128,64",
            "4,3,128,128",
            "window={size=4x3 stride=3x2 lhs_dilate=4x3}, dim_labels=01bf_01oi->01bf",
            4 * 3 * 128 * 64 * 128,
        ),
        ("8,256,768", "8,256,3072", "768,3072,1", "window={size=8}, dim_labels=0fb_0io->bf0", 8 * 256 * 768 * 3072),
        ("64,768", "1024,768", "64,1024", "dim_labels=bf_oi->bf", 64 * 768 * 1024),
    ],
)
def test_products_written_as_convolutions(left, right, out, rest, flops):
    found = program(
        f"%x = bf16[{left}]{{0}} parameter(0)",
        f"%y = bf16[{right}]{{0}} parameter(1)",
        f"ROOT %z = f32[{out}]{{0}} convolution(%x, %y), {rest}",
    )
    assert products(*found) == 2 * flops


def test_traffic_leaves_out_what_stays_on_the_chip():
    x, y = "%x = bf16[8,128]{1,0} parameter(0)", "%y = bf16[8,128]{1,0:S(1)} parameter(1)"
    assert traffic_bytes(*program(x, y, "ROOT %z = bf16[8,128]{1,0:S(1)} add(%x, %y)")) == 2048
    assert traffic_bytes(*program(x, y, "ROOT %z = bf16[8,128]{1,0} add(%x, %y)")) == 2 * 2048
    assert traffic_bytes(*program(x, "ROOT %z = (bf16[8,128]{1,0}) tuple(%x)")) == 0
    copy = "ROOT %z = (bf16[8,128]{1,0:S(1)}, bf16[8,128]{1,0}, u32[]{:S(2)}) copy-start(%x)"
    assert traffic_bytes(*program(x, copy)) == 2048


def test_a_fusion_reads_slices_and_writes_updates():
    stack, row = "%s = f32[12,8,128]{2,1,0} parameter(0)", "%r = f32[1,8,128]{2,1,0} parameter(1)"
    n = "%n = s32[]{:S(2)} parameter(2)"
    sliced = program(
        stack,
        n,
        "ROOT %f = f32[1,8,128]{2,1,0:S(1)} fusion(%s, %n), kind=kLoop, calls=%inner",
        fused=(
            "%p = f32[12,8,128]{2,1,0} parameter(0)",
            "%i = s32[] parameter(1)",
            "ROOT %d = f32[1,8,128]{2,1,0} dynamic-slice(%p, %i, %i, %i), dynamic_slice_sizes={1,8,128}",
        ),
    )
    assert traffic_bytes(*sliced) == 4096
    updated = program(
        stack,
        row,
        n,
        "ROOT %f = f32[12,8,128]{2,1,0} fusion(%s, %r, %n), kind=kLoop, calls=%inner",
        fused=(
            "%p = f32[12,8,128]{2,1,0} parameter(0)",
            "%q = f32[1,8,128]{2,1,0} parameter(1)",
            "%i = s32[] parameter(2)",
            "ROOT %d = f32[12,8,128]{2,1,0} dynamic-update-slice(%p, %q, %i, %i, %i)",
        ),
    )
    assert traffic_bytes(*updated) == 2 * 4096


@pytest.mark.parametrize(
    ("line", "sent"),
    [
        ("all-reduce(%x), channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}", {"all-reduce": 1536}),
        ("all-gather(%x), channel_id=1, replica_groups=[4,4]<=[16]", {"all-gather": 3072}),
        ("reduce-scatter(%x), channel_id=1, replica_groups=mesh['a'=8,'b'=2] {'a'}", {"reduce-scatter": 896}),
        (
            "all-gather(%x), channel_id=1, replica_groups=mesh['a'=16,'b'=1,'c'=2], device_ids=([2,16]T(1,0)) {'c'}",
            {"all-gather": 1024},
        ),
        ("all-to-all(%x), channel_id=1, replica_groups={}", {"all-to-all": 960}),
        ("collective-permute(%x), channel_id=1, source_target_pairs={{0,1}}", {"collective-permute": 1024}),
    ],
)
def test_what_a_chip_sends(line, sent):
    x = "%x = f32[256]{0} parameter(0)"
    twice, *_ = program(x, f"%y = f32[256]{{0}} {line}", f"ROOT %z = f32[256]{{0}} {line}")
    assert costs(twice).collectives == {kind: 2 * size for kind, size in sent.items()}
    fusion = "f32[256]{0} fusion(%x), kind=kCustom, calls=%inner"
    part = f"ROOT %c = f32[256]{{0}} {line}".replace("%x", "%p")
    shared, *_ = program(x, f"%y = {fusion}", f"ROOT %z = {fusion}", fused=("%p = f32[256]{0} parameter(0)", part))
    assert costs(shared).collectives == sent, "two parts of one channel count once"


def test_groups_in_unknown_words_are_refused():
    x = "%x = f32[256]{0} parameter(0)"
    with pytest.raises(ValueError, match="unknown groups"):
        costs(program(x, "ROOT %y = f32[256]{0} all-reduce(%x), channel_id=1, replica_groups=new[3]")[0])


def test_a_sum_over_devices():
    mesh = device_mesh((8, 1, 1))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    text = jax.jit(lambda x: jnp.sum(x, 0), in_shardings=rows).lower(jnp.ones((8, 512))).compile().as_text()
    assert costs(Program(text)).collectives == {"all-reduce": 2 * 512 * 4 * 7 // 8}


def test_kernels_are_counted_by_what_goes_in_and_comes_out():
    x = "%x = bf16[8,128]{1,0:S(1)} parameter(0)"
    found, *_ = program(x, 'ROOT %y = f32[8]{0} custom-call(%x), custom_call_target="tpu_custom_call"')
    assert costs(found).kernels == {"bf16[8,128] -> f32[8]": 1}
