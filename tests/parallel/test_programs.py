"""Each kind of program is compiled once for each shape, and never again."""

import jax
import jax.monitoring
import numpy as np
import pytest

from plasticity_jax import diagnostics
from plasticity_jax.data import batches
from plasticity_jax.diagnostics.subject import Part
from plasticity_jax.parallel import of_one, programs, run_axis
from plasticity_jax.runner import schedule
from plasticity_jax.training import inputs, measuring, resets, state
from tests.support.tiny import DATASET, IMAGES, MLP, OPTIM, SHAPE, STAGE, changed, first_state, same, stage, task

DUE = np.ones(3, np.bool_)
EVERYTHING = schedule.plain_source(np.arange(100), DATASET.train_labels)


def make(strategy="vmap", diagnostics=None, own_resets=None):
    return programs.Programs(MLP, SHAPE, strategy, 32, diagnostics or {}, own_resets or {})


def states(count=2, record=STAGE):
    return run_axis.stack([first_state(MLP, record, seed) for seed in range(count)])


def rows(record, until, count=2, **fields):
    return run_axis.stack([task(record, seed, **fields) for seed in range(count)]), np.full(count, until, np.int32)


def start(record, made, count=2):
    """The states and rows that `begin` takes."""
    first = jax.device_get([first_state(MLP, record, seed) for seed in range(count)])
    fresh = [made.init(batches.key(seed, "fresh", record.name)) for seed in range(count)]
    factors = resets.factors(record.reset, first[0])
    parents = [(each.params, each.stats, each.opt) for each in first]
    blank = run_axis.stack_on_host(jax.tree.map(np.zeros_like, first))
    rows = [(of_one.Start(*f, factors), parent, np.True_) for f, parent in zip(fresh, parents, strict=True)]
    return blank if made.strategy == "loop" else made.place(blank), rows


@pytest.fixture(scope="module")
def compilations():
    """A list that grows with each compilation by XLA in this process."""
    events = []

    def listen(name, seconds, **_):
        if name == "/jax/core/compile/backend_compile_duration":
            events.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return events


@pytest.mark.parametrize("strategy", [pytest.param("map", marks=pytest.mark.long), "loop"])
def test_calls_of_one_shape_compile_once(strategy, compile_anew):
    made, record = make(strategy), stage()
    counts = []
    for until, n, steps, rate in [(3, 100, 10, 0.1), (5, 100, 10, 0.1), (50, 70, 20, 0.3), (9, 33, 9, 0.01)]:
        other = changed(record, name=f"stage{n}", optim=changed(record.optim, learning_rate=rate), epochs=float(n))
        row = rows(other, until, n=n, steps=steps)
        began = made.begin(other, *start(other, made), None)
        ended, _ = made.advance(other, began, row, IMAGES)
        assert ended.step.tolist() == [min(until, -(-n // 16), steps)] * 2
        made.evaluate(ended, DUE[:2], EVERYTHING, (until % 2, n % 4), IMAGES)
        made.evaluate_own(ended, DUE[:2], row[0].source, (0, 1), IMAGES)
        counts.append((made.compiled, len(made.cache), made.seconds))
    assert counts == [(5, 5, counts[0][2])] * 4 and counts[0][2] > 0


def test_repeated_calls_compile_nothing_at_all(compilations):
    made, record = make(), stage()
    row, after = rows(record, 0), states()
    later = [(row[0], np.full(2, until, np.int32)) for until in (3, 7, 10)]
    before = len(compilations)
    for arguments in later:
        after, _ = made.advance(record, after, arguments, IMAGES)
    assert 0 < len(compilations) - before < 4  # the program, and constants at most
    before = len(compilations)
    for arguments in later:
        after, _ = made.advance(record, after, arguments, IMAGES)
    assert len(compilations) == before


def test_programs_that_are_asked_for_ahead_are_those_of_later_calls(compile_anew):
    """All that `ahead` has lowered is compiled once, whether a thread does it or, after `ahead`, the first call."""
    made, looked_at, span = make(), states(), (0, 4)
    shared = EVERYTHING, jax.tree.map(np.int32, span), IMAGES
    with made.ahead():
        program = made.program("evaluate", None, looked_at, DUE[:2], *shared)
    evaluated = made.evaluate(looked_at, DUE[:2], EVERYTHING, span, IMAGES)
    assert made.pool is None and list(made.cache.values()) == [program] and made.seconds > 0
    assert same(evaluated, make().evaluate(looked_at, DUE[:2], EVERYTHING, span, IMAGES))


def test_on_a_gpu_programs_are_compiled_one_after_another(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    made = make()
    with made.ahead():
        assert made.pool is None


@pytest.mark.parametrize(("images", "quickly"), [(96, True), (128, True), (256, False)])
def test_an_instrument_is_optimised_if_it_measures_many_images(images, quickly, monkeypatch, compile_anew):
    how = {}
    monkeypatch.setattr(run_axis, "compile_over", lambda *args, **given: how.update(given))
    made = programs.Programs(MLP, SHAPE, "loop", 32, {}, {}, instruments=diagnostics.INSTRUMENTS)
    probe = Part(*np.zeros((4, 2, images)))
    row = measuring.Measured(rows(STAGE, 1)[0], probe, (), (), DUE[:2], DUE[:2])
    made.program("measure noise", STAGE, states(), row, IMAGES)
    assert how["quickly"] is quickly
    made.program("evaluate_own", None, states(), (DUE[:2], rows(STAGE, 1)[0].source), (0, 1), IMAGES)
    assert how["quickly"] is False


SAME = [
    {"learning_rate": 0.5, "weight_decay": 0.1},
    {"until_accuracy": 0.5, "epochs": 7.0, "steps": 3, "eval_every": 2, "name": "other", "recipe": "blend"},
]
ANOTHER = [
    {"batch_size": 8},
    {"augment": "crop"},
    {"augment": "crop_flip"},
    {"schedule": "cosine"},
    {"schedule": "step", "milestones": (0.5,)},
    {"momentum": 0.9},
    {"nesterov": True},
    {"optim": changed(OPTIM, name="adam")},
    {"clip_norm": 1.0},
]


@pytest.mark.parametrize(("other", "count"), [(o, 1) for o in SAME] + [(o, 2) for o in ANOTHER], ids=str)
def test_stages_of_one_shape_share_a_program(other, count, monkeypatch, compile_anew):
    compiled = []
    monkeypatch.setattr(run_axis, "compile_over", lambda *args, **_: compiled.append(args) or (lambda *_: None))
    made = make()
    for record in (stage(), stage(**other), stage()):
        made.advance(record, states(record=record), rows(record, 3), IMAGES)
    assert made.compiled == len(compiled) == count


@pytest.mark.parametrize(("strategy", "programs"), [pytest.param("vmap", 2, marks=pytest.mark.long), ("loop", 1)])
def test_another_number_of_runs_is_another_program_but_by_loop(strategy, programs, compile_anew):
    made, record = make(strategy), stage()
    for count in (1, 2, 1):
        made.advance(record, states(count), rows(record, 3, count), IMAGES)
    assert made.compiled == programs


def test_first_weights():
    made = make()
    network = made.init(state.init_key(3))
    assert same(network, made.init(state.init_key(3))) and not same(network, made.init(state.init_key(4)))
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(network))
    assert made.compiled == 1


BY_DAY = ("map", "split")  # in turns, and side by side on the devices


@pytest.mark.parametrize(
    "strategy", [pytest.param(name, marks=() if name in BY_DAY else pytest.mark.long) for name in run_axis.STRATEGIES]
)
def test_evaluation_is_of_each_run(strategy):
    made, after = make(strategy), states(3)
    host = jax.device_get(after)
    after = made.place(host)
    everything = made.evaluate(after, made.place(DUE), EVERYTHING, (0, 4), IMAGES)
    last = run_axis.fetch(made.evaluate(after, made.place(DUE), EVERYTHING, (3, 4), IMAGES), 3)
    assert run_axis.fetch(everything["count"], 3).tolist() == [[32, 32, 32, 4]] * 3
    assert last["count"].tolist() == [[0, 0, 0, 4]] * 3 and not last["loss"][:, :3].any()
    np.testing.assert_array_equal(last["loss"][:, 3], run_axis.fetch(everything["loss"], 3)[:, 3])
    for i in range(3):
        one = jax.tree.map(lambda leaf: leaf[i : i + 1], host)  # noqa: B023
        alone = make().evaluate(one, DUE[:1], EVERYTHING, (3, 4), IMAGES)
        assert float(last["loss"][i, 3]) == pytest.approx(float(alone["loss"][0, 3]), rel=1e-5)
    sources = made.place([EVERYTHING._replace(size=np.int32(size)) for size in (99, 97, 40)])
    by_run = run_axis.fetch(made.evaluate_own(after, made.place(DUE), sources, (3, 4), IMAGES), 3)
    assert by_run["count"][:, 3].tolist() == [3, 1, 0] and by_run["loss"][2, 3] == 0


@pytest.mark.parametrize("strategy", ["map", "vmap", "cores"])
def test_runs_that_are_not_due_are_not_evaluated(strategy):
    made = make(strategy, diagnostics={"weight_norm": diagnostics.DIAGNOSTICS["weight_norm"]})
    after, due = made.place(jax.device_get(states(3))), made.place(np.array([False, True, False]), idle=False)
    sums = run_axis.fetch(made.evaluate(after, due, EVERYTHING, (0, 4), IMAGES), 3)
    assert (sums["count"].sum(1).tolist(), (sums["loss"] > 0).any(1).tolist()) == ([0, 100, 0], [False, True, False])
    probe = inputs.Probe(np.tile(np.arange(9), (3, 1)), np.tile(DATASET.train_labels[:9], (3, 1)))
    rows = made.place((jax.device_get(states(3).params), {"train": probe, "test": probe}))
    norms = run_axis.fetch(made.diagnose(after, due, rows, IMAGES, IMAGES), 3)["weight_norm"]
    assert (norms > 0).tolist() == [False, True, False]


def test_diagnostics_of_each_run():
    made = make(diagnostics={"distance_to_init": diagnostics.DIAGNOSTICS["distance_to_init"]})
    after = states(3)
    initial = run_axis.stack([first_state(MLP, STAGE, seed).params for seed in (0, 1, 0)])
    probe = inputs.Probe(np.tile(np.arange(9), (3, 1)), np.tile(DATASET.train_labels[:9], (3, 1)))
    distances = made.diagnose(after, DUE, (initial, {"train": probe, "test": probe}), IMAGES, IMAGES)
    assert distances["distance_to_init"].shape == (3,)
    assert distances["distance_to_init"][:2].tolist() == [0, 0] and distances["distance_to_init"][2] > 0


def test_own_resets_are_looked_up_by_name():
    def zero(state, fresh):
        return state.replace(params=jax.tree.map(lambda leaf: 0 * leaf, state.params))

    made = make(own_resets={"zero": zero})
    plain, zeroed = stage(), stage(function="zero")
    assert not all((leaf == 0).all() for leaf in jax.tree.leaves(made.begin(plain, *start(plain, made), None).params))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(made.begin(zeroed, *start(zeroed, made), None).params))


def test_advance_gives_its_states_away():
    made, record = make(), stage()
    before = states()
    made.advance(record, before, rows(record, 3), IMAGES)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params))
    kept = states()
    made.evaluate(kept, DUE[:2], EVERYTHING, (0, 1), IMAGES)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(kept))
