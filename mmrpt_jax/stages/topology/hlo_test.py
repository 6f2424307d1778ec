import pytest

from mmrpt_jax.stages.topology.exchanges import exchanges
from mmrpt_jax.stages.topology.hlo import read_module, shape_bytes
from mmrpt_jax.stages.topology.traffic import traffic

# A loop of five that takes a row of 64 numbers out of memory each time, and adds it up in the core's own.
LOOP = """HloModule jit_f, is_scheduled=true

%rows (param_0: f32[5,64], param_1: s32[]) -> f32[64] {
  %param_0 = f32[5,64]{1,0:T(8,128)} parameter(0)
  %param_1 = s32[]{:T(128)} parameter(1)
  %cut = f32[1,64]{1,0:T(8,128)} dynamic-slice(%param_0, %param_1), dynamic_slice_sizes={1,64}
  ROOT %row = f32[64]{0:T(128)} bitcast(%cut)
}

%put (param_0.1: f32[5,64], param_1.1: f32[64], param_2: s32[]) -> f32[5,64] {
  %param_0.1 = f32[5,64]{1,0:T(8,128)} parameter(0)
  %param_1.1 = f32[64]{0:T(128)} parameter(1)
  %new = f32[1,64]{1,0:T(8,128)} bitcast(%param_1.1)
  %param_2 = s32[]{:T(128)} parameter(2)
  ROOT %changed = f32[5,64]{1,0:T(8,128)} dynamic-update-slice(%param_0.1, %new, %param_2)
}

%body (carry: (s32[], f32[5,64])) -> (s32[], f32[5,64]) {
  %carry = (s32[]{:T(128)S(6)}, f32[5,64]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)S(6)} get-tuple-element(%carry), index=0
  %all = f32[5,64]{1,0:T(8,128)} get-tuple-element(%carry), index=1
  %taken = f32[64]{0:T(128)S(1)} fusion(%all, %i), kind=kLoop, calls=%rows
  %sum = f32[64]{0:T(128)S(1)} all-reduce(%taken), channel_id=1, to_apply=%add, metadata={op_name="jit(f)/sum"}
  %put.1 = f32[5,64]{1,0:T(8,128)} fusion(%all, %sum, %i), kind=kLoop, calls=%put
  ROOT %tuple = (s32[]{:T(128)S(6)}, f32[5,64]{1,0:T(8,128)}) tuple(%i, %put.1)
}

%condition (carry.1: (s32[], f32[5,64])) -> pred[] {
  %carry.1 = (s32[]{:T(128)S(6)}, f32[5,64]{1,0:T(8,128)}) parameter(0)
  %end = s32[]{:T(128)S(6)} constant(5)
  %i.1 = s32[]{:T(128)S(6)} get-tuple-element(%carry.1), index=0
  ROOT %less = pred[]{:T(512)S(6)} compare(%i.1, %end), direction=LT
}

ENTRY %main (p: f32[5,64]) -> f32[5,64] {
  %p = f32[5,64]{1,0:T(8,128)} parameter(0)
  %zero = s32[]{:T(128)S(6)} constant(0)
  %start = (s32[]{:T(128)S(6)}, f32[5,64]{1,0:T(8,128)}) tuple(%zero, %p)
  %while = (s32[]{:T(128)S(6)}, f32[5,64]{1,0:T(8,128)}) while(%start), condition=%condition, body=%body
  %last = f32[5,64]{1,0:T(8,128)} get-tuple-element(%while), index=1
  ROOT %copied = f32[5,64]{1,0:T(8,128)} copy(%last)
}
"""
# One collective in three pieces: the second of them goes on in a loop of seven.
PIECES = """HloModule jit_g, is_scheduled=true

%begin (a: bf16[8,4]) -> bf16[64,4] {
  %a = bf16[8,4]{1,0} parameter(0)
  ROOT %gather.1 = bf16[64,4]{1,0} all-gather(%a), channel_id=3, dimensions={0}
}

%go_on (b: bf16[8,4]) -> bf16[64,4] {
  %b = bf16[8,4]{1,0} parameter(0)
  ROOT %gather.2 = bf16[64,4]{1,0} all-gather(%b), channel_id=3, dimensions={0}
}

%all-reduce-scatter.1 (c: f32[64,4]) -> f32[8,4] {
  %c = f32[64,4]{1,0} parameter(0)
  ROOT %reduce = f32[64,4]{1,0} all-reduce(%c), channel_id=4, to_apply=%add
}

%body (carry: bf16[8,4]) -> bf16[8,4] {
  %carry = bf16[8,4]{1,0} parameter(0)
  %piece = bf16[64,4]{1,0} fusion(%carry), kind=kCustom, calls=%go_on
  ROOT %same = bf16[8,4]{1,0} bitcast(%carry)
}

%condition (carry.1: bf16[8,4]) -> pred[] {
  %carry.1 = bf16[8,4]{1,0} parameter(0)
  ROOT %ask = pred[] custom-call(%carry.1), custom_call_target="ask"
}

ENTRY %main (p: bf16[8,4], g: f32[64,4]) -> f32[8,4] {
  %p = bf16[8,4]{1,0} parameter(0)
  %g = f32[64,4]{1,0} parameter(1)
  %first = bf16[64,4]{1,0} fusion(%p), kind=kCustom, calls=%begin
  %while = bf16[8,4]{1,0} while(%p), condition=%condition, body=%body
  ROOT %scattered = f32[8,4]{1,0} fusion(%g), kind=kCustom, calls=%all-reduce-scatter.1
}
"""


@pytest.mark.parametrize(
    "shape, in_memory, anywhere",
    [
        ("f32[2,3]{1,0:T(8,128)}", 24, 24),
        ("bf16[2,3]{1,0:T(8,128)(2,1)S(1)}", 0, 12),
        ("(pred[7]{0}, s32[]{:T(128)S(6)}, u8[5])", 12, 16),
    ],
)
def test_bytes_of_a_shape(shape, in_memory, anywhere):
    assert shape_bytes(shape) == in_memory
    assert shape_bytes(shape, anywhere=True) == anywhere


def test_a_loop_counts_as_often_as_it_runs_and_a_slice_as_what_it_is():
    row, everything = 64 * 4, 5 * 64 * 4
    # Each time one row is read and one is written in place; at the end all is read and written.
    assert traffic(*read_module(LOOP)) == 5 * (row + row) + 2 * everything


def test_a_collective_in_a_loop():
    (found,) = exchanges(*read_module(LOOP))
    assert (found.kind, found.shapes, found.size, found.times) == ("all-reduce", ((64,),), 256, 5)
    assert found.origin == "jit(f)/sum"


def test_pieces_are_one_collective():
    gathered, scattered = sorted(exchanges(*read_module(PIECES), trips=7), key=lambda found: found.kind)
    assert (gathered.kind, gathered.size, gathered.times) == ("all-gather", 64 * 4 * 2, 1)
    assert scattered.kind == "reduce-scatter"
