"""What the lab claims about accelerators, on programs compiled for described ones; `make test_aot`, in minutes.

ResNet-18 of width 64 with the ImageNet stem on CIFAR-10, eight runs, by the strategy that `auto` takes: several devices
share the runs.
"""

import pytest

from plasticity_jax import experiment, target
from plasticity_jax.errors import LabError, RoomError
from plasticity_jax.parallel import memory
from tests.aot import described, hlo
from tests.aot.programs import ALONE, SEVERAL, compiled, whole

pytestmark = [pytest.mark.aot, pytest.mark.usefixtures("compile_anew")]  # kept programs are not distinguished by device
GIB = 2**30


def on(*names: str) -> pytest.MarkDecorator:
    """Cases by device; `make test_aot` gives each device a process, in which its cases share compiled programs."""
    return pytest.mark.parametrize("name", names)


@pytest.mark.parametrize(
    ("name", "count", "kind", "gib"),
    [
        ("v4:2x2x1", 8, "TPU v4", 15.25),  # two cores per chip
        ("v5e:1x1", 1, "TPU v5 lite", 15.75),
        ("v5e", 1, "TPU v5 lite", 15.75),
        ("v5e:2x4", 8, "TPU v5 lite", 15.75),
        ("v6e:2x2", 4, "TPU v6 lite", 31.25),
        ("h100", 1, "NVIDIA H100 80GB HBM3", 0.75 * 84942979072 / GIB),  # the share that jax takes
        ("h100:4", 4, "NVIDIA H100 80GB HBM3", 0.75 * 84942979072 / GIB),
        (f"{target.GPUS / 'h100.txtpb'}:2", 2, "NVIDIA H100 80GB HBM3", 0.75 * 84942979072 / GIB),
    ],
)
def test_devices_are_as_described(name, count, kind, gib):
    with target.described(name):
        assert (len(target.devices()), target.devices()[0].device_kind) == (count, kind)
        assert target.backend() == ("gpu" if "H100" in kind else "tpu")
        assert memory.free(target.devices()[0]) == int(gib * GIB)
    assert target.backend() == "cpu"


def test_a_device_that_cannot_be(tmp_path):
    (tmp_path / "none.txtpb").write_text("no description")
    for name in ("v5e:3x3", "v9:2x2", f"{tmp_path}/none.txtpb"):
        with pytest.raises(LabError, match=f"^--compile_for={name}: it cannot be described: "), target.described(name):
            pass


@on(*ALONE, *SEVERAL)
def test_every_program_compiles_and_fits(name):
    result = whole(name)
    assert set(result.texts) == {"begin", "advance", "evaluate", "diagnose"}
    assert all(0 < footprint.total < result.memory for footprint in result.footprints.values())
    assert len(result.footprints) == 4


@on(*ALONE, *SEVERAL)
def test_networks_compute_in_bfloat16(name):
    """Except in the head, which is float32, like the accumulation within a product on both kinds of hardware."""
    for kind, least in (("advance", 55), ("evaluate", 18), ("diagnose", 18)):
        products = [each for each in hlo.products(whole(name).texts[kind]) if "ResNet" in each.source]
        inner = [each for each in products if "/head/" not in each.source]
        assert len(inner) >= least, kind
        assert {each.factors for each in inner} == {("bf16", "bf16")}, kind
        assert len(products) > len(inner) or kind == "diagnose", kind  # no diagnostic looks at the logits


@on(*ALONE, *SEVERAL)
def test_sums_are_float32(name):
    for kind, text in whole(name).texts.items():
        assert not [line.source for line in hlo.narrow_sums(text)], kind


@on(*SEVERAL)
def test_runs_that_are_dealt_out_exchange_nothing(name):
    result = whole(name)
    assert result.mesh == {"run": 8 if name == "v5e:2x4" else 4, "batch": 1}
    for kind, text in result.texts.items():
        assert not hlo.collectives(text), kind


@on(*ALONE, *SEVERAL)
def test_no_program_waits_for_the_host(name):
    for kind, text in whole(name).texts.items():
        assert not [*hlo.host_transfers(text)], kind


@on(*SEVERAL)
def test_devices_that_share_a_batch_sum_in_float32(name):
    """Two runs on several devices; a smaller network, since it is compiled for this alone."""
    result = compiled(name, 2, "advance", quickly=True, depth=1, width=8)
    assert result.mesh == {"run": 2, "batch": 4 if name == "v5e:2x4" else 2}
    exchanged = [hlo.element(line.type) for line in hlo.collectives(result.texts["advance"])]
    assert "f32" in exchanged and set(exchanged) <= {"f32", "s32", "u32", "pred"}
    inner = [each for each in hlo.products(result.texts["advance"]) if "head" not in each.source]
    assert {each.factors for each in inner} == {("bf16", "bf16")}


@on(*ALONE)
def test_float32_has_the_precision_that_was_asked_for(name):
    small = dict(quickly=True, depth=1, width=8, **{"model.dtype": "float32"})
    result = compiled(name, 1, "advance", precision="highest", **small)
    asked = hlo.products(result.texts["advance"])
    assert len(asked) >= 25
    assert {(each.factors, each.precisions) for each in asked} == {(("f32", "f32"), ("highest", "highest"))}
    plain = hlo.products(compiled(name, 1, "evaluate", **small).texts["evaluate"])
    assert plain and not [each for each in plain if "highest" in each.precisions]


WIDE = {
    "model.name": "mlp",
    "model.depth": 1,
    "model.width": 2**17,
    "diagnostics": (),
}  # 5 GB a run with Adam's moments


@on("v5e:1x1")
def test_a_tpu_refuses_what_does_not_fit(name, tmp_path, capsys):
    with pytest.raises(LabError, match="^main: the compiler refused .*train advance"):
        experiment.run(described.study(8, **WIDE), tmp_path, compile_for=name)
    assert "train advance" in (out := capsys.readouterr().out)
    assert [line for line in out.splitlines() if "advance" in line and "refused: RESOURCE_EXHAUSTED" in line]


@on("h100")
def test_a_gpu_has_room_for_as_many_as_it_says(name, tmp_path, capsys):
    with pytest.raises(RoomError, match="^main: stage train: 24 runs need .* GB of memory .* would fit"):
        experiment.run(described.study(24, **WIDE), tmp_path, compile_for=name)
    assert "1 x NVIDIA H100 80GB HBM3 (gpu); strategy vmap; bfloat16" in capsys.readouterr().out
