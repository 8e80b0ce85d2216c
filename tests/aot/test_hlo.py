"""Reading compiled programs; each test finds something that the tests in `test_aot` assert to be absent."""

from tests.aot import hlo

TEXT = """HloModule example

%add.1 (a: bf16[], b: bf16[]) -> bf16[] {
  %a = bf16[] parameter(0)
  %b = bf16[] parameter(1)
  ROOT %sum = bf16[] add(%a, %b)
}

%add.2 (c: f32[], d: f32[]) -> f32[] {
  %c = f32[] parameter(0)
  %d = f32[] parameter(1)
  ROOT %sum.2 = f32[] add(%c, %d)
}

ENTRY %main (x: bf16[8,4], y: f32[4,2]) -> f32[] {
  %x = bf16[8,4]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %y = f32[4,2]{1,0:T(8,128)S(5)} parameter(1)
  %c.1 = (bf16[8,2]{1,0}, s8[64]{0}) custom-call(%x, %x), custom_call_target="__cublas$lt$matmul", CONFIG
  %d.1 = f32[8,2]{1,0} dot(%y, %x), operand_precision={highest,highest}, metadata={op_name="jit(f)/Net/head/dot"}
  %e.1 = f32[8,2]{1,0} convolution(%y, %y), dim_labels=b01f_01io->b01f
  %r.1 = bf16[8]{0} reduce(%x, %zero), dimensions={1}, to_apply=%add.1
  %r.2 = f32[8]{0} reduce(%d.1, %zero), dimensions={1}, to_apply=%add.2
  %s.1 = bf16[8]{0} all-reduce-start(%r.1), replica_groups={{0,1}}, to_apply=%add.1
  %s.2 = bf16[8]{0} all-reduce-done(%s.1)
  %g.1 = f32[16]{0} all-gather(%r.2), dimensions={0}
  %h.1 = f32[] custom-call(%r.2), custom_call_target="xla_ffi_python_gpu_callback"
  ROOT %o.1 = token[] outfeed(%r.2, %token)
}
"""
CONFIG = 'metadata={op_name="jit(f)/Net/conv"}, backend_config={"operand_precision":["DEFAULT","HIGHEST"]}'
TEXT = TEXT.replace("CONFIG", CONFIG)


def test_products():
    assert hlo.products(TEXT) == [
        hlo.Product(("bf16", "bf16"), "bf16", "jit(f)/Net/conv", ("default", "highest")),
        hlo.Product(("f32", "bf16"), "f32", "jit(f)/Net/head/dot", ("highest", "highest")),
        hlo.Product(("f32", "f32"), "f32", "", ()),
    ]


def test_sums_and_exchanges():
    assert [line.name for line in hlo.narrow_sums(TEXT)] == ["r.1"]
    assert [(line.name, hlo.element(line.type)) for line in hlo.collectives(TEXT)] == [("s.1", "bf16"), ("g.1", "f32")]


def test_what_has_to_do_with_the_host():
    assert [line.name for line in hlo.host_transfers(TEXT)] == ["y", "h.1", "o.1"]
