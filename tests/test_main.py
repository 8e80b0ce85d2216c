"""The command line: overrides take effect, mistakes get one line, and outcomes become exit statuses."""

import types

import pytest
from ml_collections.config_flags import config_path

from plasticity_jax import experiment, main, study_config
from plasticity_jax.config import validate
from plasticity_jax.errors import ConfigError, Preempted, WorkdirError
from tests.support import commands

# ml_collections loads config files by a deprecated method.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

FIGURE = "configs/multistage.py"
WARM = 'stages.tune.branches["pretrain+tune"]'


class Outcome(types.SimpleNamespace):
    """`status`, `out` and `err` of a call, and the `config`, `workdir` and flags that the study was run with."""


@pytest.fixture
def call(monkeypatch, capsys):
    """Calls the command in this process, with a stand-in for training that returns or raises `result`."""

    def call(*args, result=None) -> Outcome:
        outcome = Outcome(config=None)

        def run(config, workdir, **instead):
            outcome.__dict__.update(config=config, workdir=workdir, **instead)
            if isinstance(result, BaseException):
                raise result
            return {"status": "finished"} if result is None else result

        monkeypatch.setattr(experiment, "run", run)
        outcome.__dict__.update(commands.call(main.main, *args, capture=capsys)._asdict())
        return outcome

    return call


@pytest.fixture
def overridden(call):
    def overridden(*overrides, config=f"{FIGURE}:small"):
        outcome = call(f"--config={config}", "--workdir=somewhere", *overrides)
        assert (outcome.status, outcome.err) == (0, "")
        return outcome.config

    return overridden


# Overrides.


def test_config_and_workdir_arrive(call):
    outcome = call(f"--config={FIGURE}:small", "--workdir", "somewhere")
    assert (outcome.workdir, outcome.dry_run, outcome.config.train_images) == ("somewhere", False, 5000)
    assert outcome.config.is_locked
    assert call(f"--config={FIGURE}:small", "--workdir=x", "--dry_run").dry_run
    assert call(f"--config={FIGURE}:small", "--autotune").autotune and not outcome.autotune
    assert call(f"--config={FIGURE}:small", "--compile_for=h100:4").compile_for == "h100:4" and not outcome.compile_for


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("stages.tune.optim.learning_rate=1e-2", "stages.tune.optim.learning_rate", 0.01),
        ("seeds=0,1,2", "seeds", (0, 1, 2)),
        ("seeds=(0,1,2)", "seeds", (0, 1, 2)),
        ("seeds=3", "seeds", (3,)),
        ("model.width=16", "model.width", 16),
        ("dataset=cifar10_jpeg", "dataset", "cifar10_jpeg"),
        ("stages.pretrain.epochs=5", "stages.pretrain.epochs", 5.0),
        ("stages.pretrain.epochs=0.5", "stages.pretrain.epochs", 0.5),
        ("stages.tune.optim.milestones=0.5,0.75", "stages.tune.optim.milestones", (0.5, 0.75)),
        ("stages.tune.reset.modules=head", "stages.tune.reset.modules", ("head",)),
        ("stages.tune.data.shuffle", "stages.tune.data.shuffle", True),
        ("stages.tune.data.shuffle=false", "stages.tune.data.shuffle", False),
        ("stages.tune.augment=crop", "stages.tune.augment", "crop"),
        ("stages.tune.branches.fresh.after=pretrain@3", "stages.tune.branches.fresh.after", "pretrain@3"),
    ],
)
def test_override(overridden, override, path, value):
    setting = overridden(f"--config.{override}")
    for key in path.split("."):
        setting = setting[key]
    assert setting == value
    assert type(setting) is type(value)


TUPLES = [
    "seeds",
    "diagnostics",
    "instruments",
    "stages.tune.measure_steps",
    "mean",
    "model.injected",
    "std",
    "stages.tune.trained",
    "stages.tune.data.classes",
]
TUPLES += ["stages.tune.optim.milestones", "stages.tune.reset.modules"]


def test_all_tuples_are_tried_below(overridden):
    found = [path for path, value in validate.paths(validate.plain(overridden())) if isinstance(value, tuple)]
    assert sorted(path for path in found if ".pretrain." not in path) == sorted([*TUPLES, "grid"])


@pytest.mark.parametrize("path", TUPLES)
def test_of_a_tuple_given_twice_the_last_wins_and_it_may_be_empty(overridden, path):
    def found(*texts):
        return config_path.get_value(path, overridden(*(f"--config.{path}={text}" for text in texts)))

    assert found("0", "1,2") == (1, 2)
    assert found("a,b", "c") == ("c",)
    assert found("") == found("a", "") == ()
    assert config_path.get_value(path, overridden(f"--config.{path}", "0", f"--config.{path}", "3")) == (3,)


def test_of_any_other_key_too_the_last_wins(overridden):
    assert overridden("--config.model.width=4", "--config.model.width=8").model.width == 8


def test_overrides_are_parsed_into_the_study(overridden):
    study = study_config.parse(
        overridden(
            "--config.seeds=0,7",
            "--config.diagnostics=weight_norm,effective_rank",
            "--config.stages.tune.reset.modules=module5,head",
            f"--config.{WARM}.after=pretrain@2",
            "--config.grid=stages.tune.optim.learning_rate=1e-3,1e-2",
            "--config.grid=model.width=8,16",
        )
    )
    assert study.seeds == (0, 7)
    assert study.diagnostics == ("weight_norm", "effective_rank")
    assert [pack.name for pack in study.packs] == ["width=8", "width=16"]
    stage = study.packs[0].plans[1][1][-1]
    assert (stage.reset.modules, stage.after, stage.optim.learning_rate) == (("module5", "head"), "pretrain@2", 1e-2)


def test_an_override_of_one_stage_leaves_the_others_alone(overridden):
    found = overridden("--config.stages.tune.optim.learning_rate=0.5", "--config.stages.tune.data.fraction=0.75").stages
    assert (found.pretrain.optim.learning_rate, found.pretrain.data.fraction) == (1e-3, 0.5)
    assert (found.tune.optim.learning_rate, found.tune.data.fraction) == (0.5, 0.75)


def test_grid_as_python(overridden):
    for written in ('"model.width",(8,16)', '("model.width",(8,16)),'):
        assert [pack.model.width for pack in study_config.parse(overridden(f"--config.grid={written}")).packs] == [
            8,
            16,
        ]


def test_later_overrides_win(overridden):
    assert overridden("--config.model.width=8", "--config.model.width=4").model.width == 4


def test_flags_from_a_file(call, tmp_path):
    (tmp_path / "flags").write_text(f"--config={FIGURE}:small\n--workdir=somewhere\n--config.model.width=4\n")
    assert call(f"--flagfile={tmp_path}/flags").config.model.width == 4


# Mistakes.

GOOD = [f"--config={FIGURE}:small", "--workdir=somewhere"]


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        ([], ["--config is missing"]),
        (["--workdir=x"], ["--config is missing"]),
        (["--config.model.width=3", "--workdir=x"], ["--config is missing"]),
        (["--config="], ["--config is missing"]),
        (GOOD[:1], ["--workdir is missing"]),
        ([GOOD[0], "--dry_run", "--autotune"], ["--dry_run and --autotune exclude each other"]),
        ([GOOD[0], "--autotune", "--compile_for=h100"], ["--autotune and --compile_for exclude each other"]),
        ([GOOD[0], "--workdir="], ["--workdir is missing"]),
        ([GOOD[0], "--workdir"], ["Missing value", "workdir"]),
        (["--config"], ["Missing value", "config"]),
        (["--confg=x"], ["confg", "Did you mean: config"]),
        ([*GOOD, "--wrkdir=x"], ["wrkdir", "workdir"]),
        ([*GOOD, "--dry-run"], ["dry-run", "dry_run"]),
        ([*GOOD, "small"], ["'small' is not a flag"]),
        ([*GOOD, "config.model.width=3"], ["'config.model.width=3' is not a flag"]),
        (["--config=configs/multistge.py:small", "--workdir=x"], ["configs/multistge.py", "no such file"]),
        (["--config=configs", "--workdir=x"], ["--config=configs:", "no such file"]),
        (["--config=configs/multistge.py", "--workdir=x", "--config.model.width=3"], ["no such file"]),
        ([f"--config={FIGURE}:smal", "--workdir=x"], ["smal", "did you mean small?"]),
        ([f"--config={FIGURE}:optimiser=adm", "--workdir=x"], ["did you mean adam?"]),
        ([f"--config={FIGURE}:small,digits", "--workdir=x"], ["small and digits exclude"]),
        ([*GOOD, "--config.modle.width=3"], ["--config.modle.width: ", "did you mean --config.model.width?"]),
        ([*GOOD, "--config.model.widht=3"], ["--config.model.widht: ", "did you mean --config.model.width?"]),
        ([*GOOD, "--config.seed=3"], ["--config.seed: ", "did you mean --config.seeds?"]),
        (
            [*GOOD, "--config.stages.tune.optm.learning_rate=1"],
            ["did you mean --config.stages.tune.optim.learning_rate?"],
        ),
        (
            [*GOOD, "--config.stages.tune.optim.lr=1"],
            ["--config.stages.tune.optim.lr: ", "did you mean --config.stages."],
        ),
        ([*GOOD, "--config.stages.tine.epochs=1"], ["did you mean --config.stages.tune.epochs?"]),
        ([*GOOD, "--config.learning_rate=1"], ["--config.learning_rate: ", "optim.learning_rate?"]),
        ([*GOOD, "--noconfig.stages.tune.augmnet"], ["did you mean --config.stages.tune.augment?"]),
        ([*GOOD, "--config.model.width.x=1"], ["--config.model.width.x: there is no such key"]),
        ([*GOOD, "--config.stages[0].epochs=1"], ["--config.stages[0].epochs: there is no such key"]),
        ([*GOOD, "--config.=1"], ["--config.: there is no such key"]),
        ([*GOOD, f"--config.{WARM}.aftr=init"], [f"did you mean '--config.{WARM}.after'?"]),
        (
            [*GOOD, "--config.stages.tune.branches.pretrain+tune.after=init"],
            [f"write this as '--config.{WARM}.after'"],
        ),
        ([*GOOD, "--config.model.width=abc"], ["config.model.width", "abc"]),
        ([*GOOD, "--config.model.width=1.5"], ["config.model.width", "1.5"]),
        ([*GOOD, "--config.model.width"], ["config.model.width"]),
        ([*GOOD, "--config.model=3"], ["config.model", "3"]),
        ([*GOOD, "--config.stages.tune.data.shuffle=maybe"], ["config.stages.tune.data.shuffle", "maybe"]),
        ([*GOOD, "--config.stages.tune.epochs=many"], ["config.stages.tune.epochs", "many"]),
        ([*GOOD, "--config.model=x", "--config.model.width=3"], ["config.model"]),
        (["--config.model.width=3", *GOOD], ["config.model.width", "before"]),
        (["--flagfile=nowhere"], ["nowhere"]),
    ],
)
def test_mistakes_take_one_line(call, args, parts):
    outcome = call(*args)
    assert outcome.status == 1
    assert outcome.config is None
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    for part in parts:
        assert part in outcome.err


@pytest.mark.parametrize(
    ("lines", "parts"),
    [
        (["x = 1", "y = x +"], ["SyntaxError", "line 2"]),
        (["import nowhere_at_all"], ["config.py:1: ModuleNotFoundError", "nowhere_at_all"]),
        (["x = 1"], ["get_config"]),
        (["def get_config(arg):", "    return {}"], ["TypeError", "arg"]),
        (["def get_config():", "    return undefined"], ["config.py:2: NameError", "undefined"]),
        (["def get_config():", "    return int('x')"], ["config.py:2: ValueError", "'x'"]),
        (["def get_config():", "    return {}['x']"], ["config.py:2: KeyError", "'x'"]),
        (["def get_config():", "    return 1 / 0"], ["config.py:2: ZeroDivisionError"]),
        (
            ["from plasticity_jax.configs.base import stage", "def get_config():", "    return stage(epoch=1)"],
            ["stage key epoch", "did you mean epochs?"],
        ),
    ],
)
@pytest.mark.parametrize("override", [[], ["--config.model.width=3"]])
def test_mistakes_in_a_config_file_name_the_line(call, tmp_path, lines, parts, override):
    (tmp_path / "config.py").write_text("\n".join(lines) + "\n")
    outcome = call(f"--config={tmp_path}/config.py", "--workdir=x", *override)
    assert (outcome.status, outcome.config) == (1, None)
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    for part in parts:
        assert part in outcome.err


def test_help_shows_the_flags(call):
    outcome = call("--help")
    assert outcome.config is None
    assert "error" not in outcome.err
    assert "--helpfull" in outcome.out


# Outcomes.


@pytest.mark.parametrize(
    ("result", "status", "line"),
    [
        ({"status": "finished"}, 0, ""),
        ({"status": "failed"}, 1, ""),
        (ConfigError("config.window=2: must be in (0, 1]"), 1, "error: config.window=2: must be in (0, 1]\n"),
        (WorkdirError("workdir x is in use"), 1, "error: workdir x is in use\n"),
        (
            Preempted("stopped in stage tune; saved"),
            75,
            "stopped in stage tune; saved; the same command resumes from here\n",
        ),
        (KeyboardInterrupt(), 75, ""),
    ],
)
def test_outcomes_become_exit_statuses(call, result, status, line):
    outcome = call(*GOOD, result=result)
    assert (outcome.status, outcome.err) == (status, line)


def test_a_dry_run_need_not_finish(call):
    assert call(*GOOD, "--dry_run", result={"plan": []}).status == 0


def test_other_errors_keep_their_traceback(call):
    with pytest.raises(RuntimeError, match="a bug"):
        call(*GOOD, result=RuntimeError("a bug"))
