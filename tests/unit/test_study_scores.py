"""The comparison of a bank's scores with what training with it changed."""

import math
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from benchmarks.study.design import ARMS, SETTINGS
from benchmarks.substitution import SCORES, ScoredArm, agreement, is_comparable, scored_arms


def _arm(group: str, percent: float, score: float) -> ScoredArm:
    return ScoredArm(group, "an arm", percent, 1, score, -score, score**3, 1.0)


def test_scores_are_compared_within_groups():
    # In each group, a higher score has a lower perplexity; over both, it has not.
    arms = [_arm("a", -1, 1), _arm("a", -2, 2), _arm("a", -3, 3), _arm("b", 9, 11), _arm("b", 8, 12)]
    found = agreement(arms, SCORES["distribution"])
    assert (found.pearson, found.spearman) == pytest.approx((-1, -1))
    assert (found.ordered, found.pairs) == (4, 4)
    opposite = agreement(arms, SCORES["ten nearest"])
    assert (opposite.pearson, opposite.spearman) == pytest.approx((1, 1))
    assert (opposite.ordered, opposite.pairs) == (0, 4)
    x = np.array([1 - 12, 8 - 12, 27 - 12, (11**3 - 12**3) / 2, (12**3 - 11**3) / 2])
    y = np.array([1, 0, -1, 0.5, -0.5])
    assert agreement(arms, SCORES["WordSim"]).pearson == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert agreement([*arms, _arm("a", -5, 3)], SCORES["distribution"]).pairs == 4 + 2


def test_arms_that_differ_in_more_than_the_bank_are_not_compared():
    compared = {name for name, arm in ARMS.items() if is_comparable(arm)}
    assert {"recommended", "shuffled", "without-counts", "bank-dim-8", "recommended-2000", "with-label"} <= compared
    others = {"ce", "label-smoothing", "recommended-0.2", "gated-10", "fade", "emo1", "head-all", "input-neighbors",
              "start-from-bank-recommended", "kernel", "d2gpo"}  # fmt: skip
    assert not others & compared


def test_rows_of_a_text_are_scored(news: Path, tmp_path: Path):
    setting = SETTINGS["tiny"]
    values = {"ce": 5.0, "without-counts": 4.9, "without-counts-shuffled": 5.05, "gated-10": 4.0}
    fixed = {"setting": "tiny", "sizes": asdict(setting), "text": sha256(news.read_bytes()).hexdigest()[:16]}
    rows = [
        fixed | {"split": "valid", "arm": name, "design": asdict(ARMS[name]), "seed": 0, "ce": value}
        for name, value in values.items()
    ]
    rows += [row | {"text": "another", "arm": "bank-dim-8"} for row in rows]
    rows += [row | {"sizes": asdict(replace(setting, base_steps=3))} for row in rows]
    real, shuffled = scored_arms(rows, [news], tmp_path)
    assert {arm.group for arm in (real, shuffled)} == {"tiny, valid text of lee_background"}
    assert (real.arm, shuffled.arm, real.seeds) == ("without-counts", "without-counts-shuffled", 1)
    assert real.percent == pytest.approx(100 * math.expm1(-0.1))
    assert shuffled.percent == pytest.approx(100 * math.expm1(0.05))
    for score in (SCORES["distribution"], SCORES["ten nearest"]):
        assert score(real) > 3 * abs(score(shuffled))
    assert (shuffled.wordsim, shuffled.simlex) == (0, 0)
    assert real.wordsim != 0
