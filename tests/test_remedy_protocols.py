"""`configs/remedies.py`: the data of each protocol, the parent of each remedy, and the changes by settings."""

import pytest

from plasticity_jax import study_config
from plasticity_jax.config.plan import unfold
from plasticity_jax.configs import remedies, treatments
from plasticity_jax.errors import ConfigError


def study(arg=""):
    return study_config.parse(remedies.get_config(arg))


def plans(found):
    """The stages of all settings by (setting, stage, branch); one pack holds them all."""
    (pack,) = found.packs
    return {(dict(point)["setting"], stage.name, stage.branch): stage for point, plan in pack.plans for stage in plan}


def final_runs(groups):
    return [run for group in groups for run in group.runs if run.final]


def test_half_is_that_of_berariu():
    parsed = study()
    stages = plans(parsed)
    assert parsed.name == "remedies_half" and parsed.validation_images == 5000
    for (_, name, branch), stage in stages.items():
        assert (stage.data.fraction, stage.epochs) == {"pretrain": (0.5, 350.0), "tune": (1.0, 500.0)}[name]
        assert (stage.batch_size, stage.reset.optimiser) == (128, "all")
        if branch in ("warm", "redo", "fresh"):
            assert (stage.optim.name, stage.optim.learning_rate, stage.optim.schedule) == ("adam", 1e-3, "constant")
    after = {branch: stage.after for (_, name, branch), stage in stages.items() if name == "tune"}
    assert after["fresh"] == "init" and after["warm"] == after["shrink_perturb"] == "pretrain/warm"
    assert after["l2_init"] == "pretrain/l2_init"  # it acts from the first stage on


def test_tenth_may_come_after_wrong_labels():
    for arg, noise in (("protocol=tenth", 0.0), ("protocol=tenth,noise=0.5", 0.5), ("smoke,protocol=tenth", 0.0)):
        stages = plans(study(arg))
        assert stages["1", "pretrain", "warm"].data.fraction == 0.1
        assert stages["1", "pretrain", "warm"].data.label_noise == noise
        assert stages["1", "tune", "warm"].data.label_noise == 0
    digits = plans(study("digits,protocol=tenth,noise=0.5"))
    assert digits["1", "pretrain", "warm"].data.label_noise == 0.5 != digits["1", "tune", "warm"].data.label_noise


@pytest.mark.parametrize("chunks", [10, 50])
def test_chunks_grow_and_are_trained_until_they_are_fit(chunks):
    stages = remedies.get_config(f"protocol=chunks,chunks={chunks}").stages
    assert [(each.data.part, each.data.splits) for each in stages.values()] == [
        (i, chunks) for i in range(1, chunks + 1)
    ]
    assert {(each.until_accuracy, each.data.recipe, each.data.uniform) for each in stages.values()} == {
        (0.999, "split", 1.0)
    }
    assert list(stages)[-1] == "tune" and stages.tune.branches.warm.after == f"part{chunks - 1}/warm"
    first, second = (stages[name].branches.shrink_perturb.after for name in ("part2", "part3"))
    assert (first, second) == ("part1/warm", "part2/shrink_perturb")


@pytest.mark.parametrize("arg, groups, last", [("", 20, 100), ("digits,", 5, 10)])
def test_classes_arrive_in_groups_and_stay(arg, groups, last):
    stages = remedies.get_config(f"{arg}protocol=classes").stages
    assert [tuple(each.data.classes) for each in stages.values()] == [
        (0, last // groups * i) for i in range(1, groups + 1)
    ]


@pytest.mark.parametrize("protocol", remedies.STREAMS)
@pytest.mark.parametrize("preset", ["", "small", "digits"])
def test_streams_are_one_stage_evaluated_once_a_task(protocol, preset):
    parsed = study(f"{preset},protocol={protocol}")
    for (_, name, branch), stage in plans(parsed).items():
        assert name == "stream" and stage.data.tasks.change == protocol
        assert stage.eval_every == stage.data.tasks.epochs and stage.epochs / stage.data.tasks.epochs >= 20
        assert stage.reset.optimiser == ("all" if branch in ("fresh", "optimiser_reset") else "keep")
        assert (stage.reset.modules, stage.reset.shrink) == (("all",), 0.0) or branch != "fresh"


@pytest.mark.parametrize("protocol", remedies.PROTOCOLS)
def test_settings_ride_the_run_axis_and_other_runs_are_not_repeated(protocol):
    parsed = study(f"digits,protocol={protocol}")
    legs = unfold(parsed.packs[0], parsed.seeds[:1])
    final = [(run.branch, dict(run.hparams)) for leg in legs for run in leg.runs if run.final]
    ways = (
        treatments.at_switch(1e-3, "mlp") | treatments.throughout(100, "digits", "adam") | treatments.between_stages()
    )
    for branch in {branch for branch, _ in final}:
        several = any(isinstance(value, list) for value in ways.get(branch, {}).values())
        expected = [{"setting": word} for word in remedies.SETTINGS] if several else [{}]
        assert [point for name, point in final if name == branch] == expected
    for leg in legs:
        assert {run.stage.name for run in leg.runs} and len({tuple(run.stage.shape().items()) for run in leg.runs}) == 1
    (holder,) = [leg for leg in legs if any(run.final and run.branch == "redo" for run in leg.runs)]
    assert {run.branch for run in final_runs(legs)} >= ways.keys() - (
        treatments.between_stages().keys() if protocol in remedies.STREAMS else set()
    )
    thresholds = [dict(run.stage.remedies[0].numbers)["threshold"] for run in holder.runs]
    assert thresholds == [0.01, 0.1, 0.3]


def test_a_setting_is_the_same_in_every_stage():
    stages = plans(study("digits,protocol=chunks"))
    for setting, value in zip(remedies.SETTINGS, (1e-4, 1e-3, 1e-2), strict=True):
        strengths = {
            dict(stage.remedies[0].numbers)["strength"]
            for (word, _, branch), stage in stages.items()
            if (word, branch) == (setting, "l2_init")
        }
        assert strengths == {value}


@pytest.mark.parametrize("arg", ["noise=0.5", "protocol=half,chunks=50", "protocol=labels,noise=0.5"])
def test_an_argument_of_another_protocol_is_refused(arg):
    with pytest.raises(ConfigError, match="is only for protocol="):
        remedies.get_config(arg)


@pytest.mark.parametrize("protocol", ["half", "pixels"])
def test_some_remedies_alone(protocol):
    asked = ("redo", "larger_rate")
    parsed = study(f"digits,protocol={protocol},remedies={'+'.join(asked)}")
    branches = {run.branch for run in final_runs(unfold(parsed.packs[0], parsed.seeds[:1]))}
    assert branches == {"fresh", "warm", *asked}


@pytest.mark.parametrize("arg, absent", [("protocol=labels", "fire"), ("protocol=half", "optimiser_reset")])
def test_a_remedy_that_the_protocol_does_not_have_is_refused(arg, absent):
    with pytest.raises(ConfigError, match=f"has no {absent} here"):
        remedies.get_config(f"digits,{arg},remedies=redo+{absent}")
    with pytest.raises(ConfigError, match="did you mean redo"):
        remedies.get_config(f"digits,{arg},remedies=redu")


def test_injection_is_there_if_it_is_named_with_a_network_that_is_made_for_it():
    assert study("digits").packs[0].model.injected == ()
    parsed = study("digits,remedies=plasticity_injection+fire")
    assert parsed.packs[0].model.injected == ("module5", "head")
    final = [run for run in final_runs(unfold(parsed.packs[0], (0,))) if run.branch == "plasticity_injection"]
    assert [remedy.name for run in final for remedy in run.stage.remedies] == ["plasticity_injection"]
