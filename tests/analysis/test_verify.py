"""The command and what it prints and writes, on studies whose effects are known."""

import dataclasses
import itertools
import json
import re

import numpy as np
import pytest
from scipy import stats

from plasticity_jax.analysis import studies, verify
from plasticity_jax.analysis.effects.contrasts import Claim, minus
from plasticity_jax.analysis.effects.judgement import summary
from plasticity_jax.analysis.effects.stats import (
    BELOW,
    CONTRADICTED,
    INCONCLUSIVE,
    NOT_BELOW,
    REPRODUCED,
    UNTESTED,
    WITHIN,
    verdict,
)
from plasticity_jax.storage import results
from tests.support import synthetic

GAPS = [2.0, 3.0, 4.0, 3.0, 3.0]


def study(gaps=GAPS, name="multistage", seeds=None, **given):
    """A study of `fresh` and `pretrain+tune` whose gap at seed s is gaps[s]; None is a run without measurements."""
    world = {
        "fresh": {seed: 70.0 + 5 * seed for seed in range(len(gaps))},
        "pretrain+tune": {seed: 70.0 + 5 * seed - gap for seed, gap in enumerate(gaps) if gap is not None},
    }
    config = synthetic.branches(name, *world, seeds=seeds or len(gaps))
    return synthetic.study(config, synthetic.values(world), **given)


def claim(id="gap", direction="above", **fields):
    given = dict(study="multistage", statement="It is so.", source="A paper 2021, Figure 1")
    return Claim(id=id, contrast=minus("fresh", "pretrain+tune"), direction=direction, **given | fields)


def claim_of(contrast, id="gap"):
    return Claim(id, "multistage", "It is so.", "A paper 2021, Figure 1", contrast)


def run(*arguments):
    verify.main(list(map(str, arguments)))


def test_a_true_effect_is_measured_with_its_interval():
    (judgement,) = verify.judge([study()], [claim()])
    assert judgement.by_seed == dict(enumerate(GAPS))
    assert (judgement.effect, judgement.n, judgement.verdict, judgement.note) == (3.0, 5, REPRODUCED, "")
    assert [judgement.low, judgement.high] == pytest.approx(results.interval(GAPS))
    assert judgement.formula == "fresh - pretrain+tune"
    assert judgement.about.startswith("CIFAR-10, all training images; resnet")


@pytest.mark.parametrize(
    "gaps, direction, expected",
    [
        (GAPS, BELOW, CONTRADICTED),
        ([-gap for gap in GAPS], "above", CONTRADICTED),
        ([-1.0, 1.0, 0.5, -0.5], "above", INCONCLUSIVE),
        (GAPS, WITHIN, CONTRADICTED),
        ([0.1, -0.1, 0.2, -0.2], WITHIN, REPRODUCED),
        (GAPS, NOT_BELOW, REPRODUCED),
        ([-gap for gap in GAPS], NOT_BELOW, CONTRADICTED),
        ([0.0, 0.0, 0.0], "above", INCONCLUSIVE),
        ([0.0, 0.0, 0.0], WITHIN, INCONCLUSIVE),
        ([-750.0, -750.0, -750.0], "above", INCONCLUSIVE),
    ],
)
def test_verdicts(gaps, direction, expected):
    (each,) = verify.judge([study(gaps)], [claim(direction=direction)])
    assert each.verdict == expected


def test_one_seed_has_no_verdict():
    (judgement,) = verify.judge([study([3.0])], [claim()])
    assert (judgement.effect, judgement.low, judgement.high, judgement.n) == (3.0, None, None, 1)
    assert (judgement.verdict, judgement.bonferroni, judgement.holm) == (INCONCLUSIVE, None, None)
    assert "single seed" in judgement.note


def test_seeds_that_miss_something_are_left_out_and_said():
    (judgement,) = verify.judge([study([3.0, None, 4.0, 5.0])], [claim()])
    assert judgement.by_seed == {0: 3.0, 2: 4.0, 3: 5.0}
    assert judgement.note == "3 of 4 seeds have all that is measured"
    (judgement,) = verify.judge([study([3.0, 3.0, 4.0, 5.0], failed=["fresh/seed2"])], [claim()])
    assert sorted(judgement.by_seed) == [0, 1, 3]


def test_what_cannot_be_tested_is_listed_all_the_same():
    lacking, unmeasured = verify.judge(
        [study([None, None])],
        [claim_of(minus("fresh", "nowhere"), "a"), claim("b")],
    )
    assert (lacking.verdict, lacking.effect, lacking.n, lacking.formula) == (UNTESTED, None, 0, "")
    assert lacking.note == "the study has no such branches"
    assert unmeasured.verdict == UNTESTED


def several(count, seeds=4):
    """A study of `fresh` and branches `k-0`, `k-1`, .. with larger and larger gaps, and a claim about each."""
    gaps = {f"k-{i}": {s: (1.0 + i) * (1 + 0.1 * ((s * (i + 3)) % 5)) for s in range(seeds)} for i in range(count)}
    world = {"fresh": {s: 60.0 + 5 * s for s in range(seeds)}}
    world |= {name: {s: world["fresh"][s] - gap for s, gap in each.items()} for name, each in gaps.items()}
    example = synthetic.study(synthetic.branches("multistage", *world, seeds=seeds), synthetic.values(world))
    return example, [claim_of(minus("fresh", name), name) for name in gaps]


def test_the_family_is_all_that_is_claimed_about_a_paper_whatever_is_at_hand():
    elsewhere = [claim(f"e{i}", study="blending") for i in range(90)]
    other_paper = [claim(f"o{i}", source="Others 2020, Table 2") for i in range(7)]
    judged = verify.judge([study()], [claim(), *elsewhere, *other_paper])
    assert {each.claim.paper: each.k for each in judged} == {"A paper 2021": 91, "Others 2020": 7 - 6}
    assert summary(judged)["families"]["A paper 2021"] == {"k": 91, "level": pytest.approx(1 - 0.05 / 91)}
    both = verify.judge([study(), study([5.0, 7.0, 6.0], "blending")], [claim(), *elsewhere[:1]])
    alone = verify.judge([study()], [claim(), *elsewhere[:1]])
    assert (alone[0].k, both[0].k) == (2, 2)  # a second directory of the same study adds no test


def test_our_own_controls_are_of_the_family_and_counted_apart():
    judged = verify.judge([study()], [claim(), claim("ours", BELOW, source="ours: A paper 2021, Figure 1 [inferred]")])
    counts, k = summary(judged), judged[0].k
    assert k == 1  # the same numbers are one test, whatever the verdicts
    assert (counts["claims"]["reproduced"], counts["claims"]["contradicted"]) == (1, 0)
    assert (counts["controls"]["reproduced"], counts["controls"]["contradicted"]) == (0, 1)


def test_the_same_numbers_count_once():
    """Copies of a claim, its reverse, and the same study in another directory are one test, and each says so."""
    mirrored = Claim("mirrored", "multistage", "It is so.", "A paper 2021", minus("pretrain+tune", "fresh"), BELOW)
    given = [study(), study(directory=synthetic.Path("copied"))]
    judged = verify.judge(given, [claim(), claim("copy"), mirrored])
    assert len(judged) == 6 and {each.verdict for each in judged} == {REPRODUCED}
    assert {each.k for each in judged} == {1} and {each.bonferroni for each in judged} == {True}
    counts = summary(judged)["claims"]
    assert (counts["tested"], counts["reproduced"], counts["reproduced_after_holm"]) == (1, 1, 1)
    assert judged[0].note == "" and "the same numbers as multistage / gap" in judged[1].note


def test_other_numbers_of_the_same_study_are_another_test():
    judged = verify.judge([study(), study([1.0, 2.0, 4.0], directory=synthetic.Path("b"))], [claim()])
    assert {each.k for each in judged} == {2} and summary(judged)["claims"]["tested"] == 2


def test_a_directory_under_two_names_is_one_study(tmp_path, capsys):
    synthetic.write(study(), tmp_path / "one")
    (tmp_path / "link").symlink_to(tmp_path / "one")
    run(tmp_path / "one", tmp_path / "link", tmp_path / "x" / ".." / "one")
    assert capsys.readouterr().out.count("multistage: ") == 1


def test_no_scatter_survives_no_correction():
    judged = verify.judge([study([-750.0] * 5)], [claim(), claim("copy", BELOW)])
    assert {(each.verdict, each.low, each.bonferroni, each.holm) for each in judged} == {
        (INCONCLUSIVE, None, None, None)
    }
    assert "agree to the last digit" in judged[0].note
    assert summary(judged)["differences"] == 0


def test_a_verdict_holds_or_is_lost_as_its_corrected_interval_says():
    """The gap excludes zero up to a level of 1 - p, p of a paired t test."""
    gaps = [1.0, 3.0, 4.0, 2.0, 3.0]
    p = stats.ttest_1samp(gaps, 0.0).pvalue
    limit = int(0.05 / p)
    assert limit > 1
    for k, holds in ((limit, True), (limit + 1, False)):
        elsewhere = [claim(f"e{i}", study="blending") for i in range(k - 1)]
        (judgement,) = verify.judge([study(gaps)], [claim(), *elsewhere])
        assert (judgement.k, judgement.verdict, judgement.bonferroni, judgement.holm) == (k, REPRODUCED, holds, holds)
        assert judgement.p == pytest.approx(p)
        low, high = results.interval(gaps, 1 - 0.05 / k)
        assert (verdict("above", 1.0, low, high) == REPRODUCED) == holds


def test_holm_keeps_all_that_bonferroni_keeps_and_more():
    example, about = several(6)
    judged = verify.judge([example], about)
    assert {each.k for each in judged} == {6}
    assert all(each.holm or not each.bonferroni for each in judged)
    noisy = study([0.9, 3.0, 2.0, 1.1])
    p = stats.ttest_1samp([0.9, 3.0, 2.0, 1.1], 0.0).pvalue
    assert 0.025 < p < 0.05
    joined = verify.judge([example, dataclasses.replace(noisy, directory=synthetic.Path("noisy"))], [about[5], claim()])
    assert [(each.claim.id, each.bonferroni, each.holm) for each in joined if each.by_seed] == [
        ("k-5", True, True),
        ("gap", False, True),
    ]


def test_the_chance_of_excluding_zero_is_said_of_differences_only():
    none = [claim("equal", WITHIN, margin=5.0), claim("no-worse", NOT_BELOW), claim_of(minus("fresh", 60.0), "level")]
    assert summary(verify.judge([study()], none))["differences"] == 0
    assert "by chance" not in verify.table([study()], verify.judge([study()], none))
    counts = summary(verify.judge([study()], [claim(), *none]))
    assert (counts["differences"], counts["by_chance"]) == (1, pytest.approx(0.05))


def test_an_inconclusive_verdict_neither_holds_nor_is_lost():
    (each,) = verify.judge([study([-1.0, 1.0])], [claim()])
    assert each.verdict == INCONCLUSIVE and each.bonferroni is None and each.holm is None


def test_a_study_in_progress_is_judged_by_its_finished_runs():
    gone = study([3.0, 4.0, 5.0], finished=False)
    late = (gone.table.run == "fresh/seed1") & (gone.table.epoch > 10)
    half = studies.Study(gone.directory, gone.config, None, gone.table[~late])
    (judgement,) = verify.judge([half], [claim()])
    assert judgement.by_seed == {0: 3.0, 2: 5.0}
    assert judgement.note == "in progress; 2 of 3 seeds have all that is measured so far"


def test_each_directory_of_a_study_is_judged(tmp_path, capsys):
    for name, gaps in (("adam", GAPS), ("sgd", [-gap for gap in GAPS])):
        synthetic.write(study(gaps), tmp_path / name)
    run(tmp_path / "adam", tmp_path / "sgd", tmp_path / "adam", "--json", tmp_path / "out" / "claims.json")
    out = capsys.readouterr().out
    assert out.index(f"multistage: {tmp_path / 'adam'}") < out.index(f"multistage: {tmp_path / 'sgd'}")
    assert out.count("multistage: ") == 2  # a directory that is given twice is read once
    written = json.loads((tmp_path / "out" / "claims.json").read_text())
    gaps = {each["directory"]: each for each in written["claims"] if each["id"] == "gap"}
    assert gaps[str(tmp_path / "adam")]["verdict"] == REPRODUCED
    assert gaps[str(tmp_path / "sgd")]["verdict"] == CONTRADICTED
    assert (written["summary"]["studies"], written["summary"]["claims"]["tested"]) == (2, 1)  # up to the sign


def test_json_says_what_was_judged(tmp_path):
    examples = [study(), study(name="unheard", directory=synthetic.Path("other"))]
    judged = verify.judge(examples, [claim(), claim("same", WITHIN, margin=5.0), claim_of(minus("fresh", "no"), "no")])
    written = verify.to_json(examples, judged)
    assert json.loads(json.dumps(written, allow_nan=False)) == written
    gap, same, lacking = written["claims"]
    assert gap == {
        "id": "gap",
        "study": "multistage",
        "statement": "It is so.",
        "source": "A paper 2021, Figure 1",
        "direction": "above",
        "unit": "points",
        "margin": None,
        "paper": "A paper 2021",
        "ours": False,
        "directory": "somewhere",
        "formula": "fresh - pretrain+tune",
        "effect": 3.0,
        "low": judged[0].low,
        "high": judged[0].high,
        "n": 5,
        "level": 0.95,
        "by_seed": {"0": 2.0, "1": 3.0, "2": 4.0, "3": 3.0, "4": 3.0},
        "verdict": REPRODUCED,
        "p": judged[0].p,
        "k": 2,
        "bonferroni": True,
        "holm": True,
        "note": "",
    }
    assert (same["direction"], same["margin"], same["verdict"]) == (WITHIN, 5.0, REPRODUCED)
    assert (lacking["verdict"], lacking["effect"], lacking["by_seed"]) == (UNTESTED, None, {})
    assert [(each["study"], each["has_claims"], each["in_progress"]) for each in written["studies"]] == [
        ("multistage", True, False),
        ("unheard", False, False),
    ]
    counts = dict.fromkeys(written["summary"]["controls"], 0)
    assert written["summary"] == {
        "studies": 1,
        "claims": {
            **counts,
            "tested": 1,
            "reproduced": 1,
            "not_tested": 1,
            "reproduced_after_bonferroni": 1,
            "reproduced_after_holm": 1,
        },
        "controls": counts,
        "families": {"A paper 2021": {"k": 2, "level": pytest.approx(0.975)}},
        "differences": 1,
        "by_chance": pytest.approx(0.05),
    }


def test_the_table_says_all_and_keeps_its_width(tmp_path, capsys):
    synthetic.write(study(), tmp_path / "done")
    synthetic.write(study([1.0, 2.0], "unheard"), tmp_path / "new")
    synthetic.write(study([1.0, 2.0], ""), tmp_path / "nameless")
    run(tmp_path / "done", tmp_path / "new", tmp_path / "nameless")
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines() if str(tmp_path) not in line) <= 110
    low, high = results.interval(GAPS)
    row = next(line for line in out.splitlines() if line.split()[:1] == ["gap"])
    assert row.split() == ["gap", ">", "0", "+3.00", f"[{low:+.2f},", f"{high:+.2f}]", "5", "reproduced", "holds"]
    assert "(Berariu et al. 2021, Figure 1)" in out and "Measured: fresh - pretrain+tune; in points." in out
    assert "adam 0.001; seeds 0-4" in out
    assert f"{tmp_path / 'new'}: there are no claims about study unheard" in out
    assert f"{tmp_path / 'nameless'}: there are no claims about it" in out
    said = " ".join(out[out.index("Claims of papers") :].split())
    assert said.startswith(
        "Claims of papers: 1 contrast tested in 1 study: 1 reproduced, 0 contradicted, 0 inconclusive"
    )
    assert "3 not tested here. Of 1 verdict 1 holds after Bonferroni, 1 after Holm." in said
    assert re.search(r"tested here or not: \d+ of Berariu et al. 2021\.", said)
    assert "1 of the contrasts is zero if nothing has any effect" in said and "about 0.1 of them" in said


def test_markdown_has_a_row_for_each_claim_that_was_judged(tmp_path, capsys):
    run(synthetic.write(study(), tmp_path / "one"), "--markdown")
    name, _, head, rule, row, *rest = capsys.readouterr().out.splitlines()
    assert name == "Claims of papers:"
    low, high = results.interval(GAPS)
    assert head.count("|") == rule.count("|") == row.count("|") and not any("|" in line for line in rest)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[0] == "multistage" and cells[2:] == ["+3.00", f"[{low:+.2f}, {high:+.2f}]", "5", "**reproduced**"]


def test_a_table_of_nothing_is_a_summary():
    found = [study(name="unheard")]
    assert "0 contrasts tested in 0 studies" in verify.table(found, verify.judge(found))


def test_large_effects_are_written_without_decimals():
    judged = verify.judge([study([12345.6, 12345.6, 12346.6])], [claim(unit="updates")])
    assert "+12,346" in verify.table([study()], judged)


@pytest.mark.parametrize("wrong", ["nothing", "empty", "no table", "broken"])
def test_a_directory_that_is_no_study_is_one_line(tmp_path, wrong):
    synthetic.write(study(), tmp_path / "good")
    bad = tmp_path / "bad"
    if wrong != "nothing":
        bad.mkdir()
    if wrong == "no table":
        (bad / "config.json").write_text("{}")
    if wrong == "broken":
        synthetic.write(study(), bad)
        (bad / "config.json").write_text("{")
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path / "good", bad)
    assert re.fullmatch(rf"analysis\.claims: .*{re.escape(str(bad))}.*", str(stopped.value))


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    synthetic.write(study(), tmp_path / "good")
    with pytest.raises(SystemExit, match="^analysis.claims: .*good"):
        run(tmp_path / "good", "--json", tmp_path / "good")


def test_no_effect_is_rarely_reproduced_from_table_to_verdict():
    """As for the rule alone, but through tables, labels and seeds: 80 contrasts of five seeds."""
    gaps = np.random.default_rng(3).normal(0, 1, (80, 5))
    world = {f"k-{i}": {s: 60.0 + 5 * s - gap for s, gap in enumerate(each)} for i, each in enumerate(gaps)}
    claims = [claim_of(minus("fresh", name), name) for name in world]
    world["fresh"] = {seed: 60.0 + 5 * seed for seed in range(5)}
    example = synthetic.study(synthetic.branches("multistage", *world), synthetic.values(world))
    judged = verify.judge([example], claims)
    verdicts = [each.verdict for each in judged]
    assert verdicts.count(REPRODUCED) <= 7 and verdicts.count(CONTRADICTED) <= 7  # 2 expected
    assert verdicts.count(INCONCLUSIVE) >= 70
    assert sum(bool(each.holm) for each in judged) <= 1


def test_the_summary_counts_each_verdict_by_itself():
    judged = verify.judge(
        [study()], [claim(), claim("other"), claim("wrong", BELOW), claim("equal", WITHIN, margin=3.0)]
    )
    counts = summary(judged)["claims"]
    assert (counts["reproduced"], counts["contradicted"], counts["inconclusive"]) == (1, 1, 1)
    assert (counts["reproduced_after_bonferroni"], counts["contradicted_after_bonferroni"]) == (1, 1)


def test_markdown_has_a_table_of_our_own_controls():
    judged = verify.judge([study()], [claim(), claim("ours", BELOW, source="ours: A paper 2021 [inferred]")])
    text = verify.markdown(judged)
    assert text.index("Claims of papers:") < text.index("| **reproduced** |") < text.index("Controls of our own:")
    assert text.index("Controls of our own:") < text.index("| **contradicted** |")
    assert text.count("| study | claim |") == 2


def test_an_equivalence_is_written_with_the_level_of_its_interval():
    gaps = [0.1, -0.1, 0.2, -0.2]
    text = verify.markdown(verify.judge([study(gaps)], [claim(direction=WITHIN)]))
    low, high = results.interval(gaps, 0.9)
    assert f"[{low:+.2f}, {high:+.2f}] 90 %" in text


def test_numbers_do_not_depend_on_the_order_of_a_sum():
    """In binary the mean is a little less or more than 0.155 by that order, which differs between Pythons."""
    orders = itertools.permutations([2.07, 1.55, -0.48, -1.45, -0.915])
    judged = [verify.judge([study(list(gaps))], [claim()]) for gaps in orders]
    assert {(each.effect, each.low, each.high) for (each,) in judged} == {(0.155, judged[0][0].low, judged[0][0].high)}
