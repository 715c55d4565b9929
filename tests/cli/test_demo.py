"""`costbank demo` on a small text: its comparison is fair, and it needs exactly the packages of its extra."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from costbank_cli.demo.language_model import Training, train_in_each_way
from torch.nn.functional import cross_entropy

from costbank.progress import QuietProgress

ROOT = Path(__file__).parents[2]

RUN = """
import json, re, sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

requirements, place = json.loads(sys.argv[1]), Path(sys.argv[2])

def norm(name):
    return re.sub(r"[-_.]+", "-", name).lower()

def closure(names):
    left, known = list(names), set()
    while left:
        name = left.pop()
        base = norm(re.match(r"[A-Za-z0-9._-]+", name)[0])
        extras = re.findall(r"[\\w-]+", (re.search(r"\\[(.*?)\\]", name) or ["", ""])[1])
        if (base, *extras) in known:
            continue
        known.add((base, *extras))
        try:
            needed = requires(base) or []
        except PackageNotFoundError:
            continue
        for line in needed:
            extra = re.search(r"extra\\s*==\\s*['\\"]([^'\\"]+)", line)
            if not extra or extra[1] in extras:
                left.append(line.partition(";")[0])
    return {name[0] for name in known}

allowed, owners = closure(requirements), packages_distributions()

class OnlyAllowed:
    # Hides every package that the extra does not install.
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        foreign = top in owners and not top.startswith("costbank")
        if foreign and not any(norm(owner) in allowed for owner in owners[top]):
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [OnlyAllowed(finder) for finder in sys.meta_path]
from costbank_cli.demo import DemoOptions, run_demo
from costbank.progress import QuietProgress

lines = []
options = DemoOptions(packages=("gensim",), vocab_size=1500, steps=8, held_out_batches=2)
result = run_demo(place / "banks", place / "work", lines.append, QuietProgress(), options)
training = {name: [[p.step, p.cross_entropy, p.accuracy] for p in points] for name, points in result.training.items()}
used = sorted({norm(o) for top in {name.partition(".")[0] for name in sys.modules} for o in owners.get(top, ())})
print(json.dumps({"used": used, "lines": lines, "training": training, "guess": result.guess}))
"""


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match
    return re.sub(r"[-_.]+", "-", match[0]).lower()


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture(scope="module")
def small(project: dict, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """A run that can import only the packages of the base installation and of the extra `demo`."""
    requirements = project["dependencies"] + project["optional-dependencies"]["demo"]
    place = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(requirements), str(place)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) | {"place": place}


def test_the_demo_runs_with_its_extra_and_uses_all_of_it(small: dict, project: dict):
    wanted = {_name(requirement) for requirement in project["optional-dependencies"]["demo"]}
    assert wanted <= set(small["used"]), wanted - set(small["used"])


def test_the_extra_asks_for_the_versions_that_the_others_ask_for(project: dict):
    extras = project["optional-dependencies"]
    others = {line for name in ("build", "map", "serve", "train") for line in extras[name]}
    assert set(extras["demo"]) <= others


def test_every_training_is_measured_at_the_same_steps_of_the_same_text(small: dict):
    training = small["training"]
    assert list(training) == ["cross-entropy", "start", "start+EMOLoss"]
    assert all([step for step, _, _ in points] == [2, 4, 6, 8] for points in training.values())
    assert all(4 < nats < 9 and 0 <= hits < 1 for points in training.values() for _, nats, hits in points)
    assert len({points[0][1] for points in training.values()}) == 3
    assert 0.01 < small["guess"] < 0.2


def test_held_out_text_is_not_in_the_training_text(small: dict):
    work = small["place"] / "work"
    gathered, train, held_out = (
        (work / name).read_text("utf-8").splitlines() for name in ("docstrings.txt", "training.txt", "held-out.txt")
    )
    assert sorted(train + held_out) == sorted(gathered)
    assert not set(train) & set(held_out)
    assert len(held_out) == -(-len(gathered) // 20)


def test_the_printed_figures_are_those_that_were_measured(small: dict):
    last = next(line for line in small["lines"] if line.startswith("        8   "))
    ends = [points[-1] for points in small["training"].values()]
    assert last.split() == ["8", *(f"{nats:.3f}" for _, nats, _ in ends), *(f"{hits:.1%}" for _, _, hits in ends)]
    plain = ends[0][1]
    printed = " ".join(small["lines"])
    for name, (_, nats, _) in zip(list(small["training"])[1:], ends[1:], strict=True):
        assert f"{np.exp(nats - plain) - 1:+.1%} with {name}" in printed


def test_one_loss_under_two_names_gives_the_same_course():
    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return cross_entropy(logits.flatten(0, 1), labels.flatten())

    ids = np.tile(np.arange(50), 40).astype(np.int64)
    result = train_in_each_way(
        {"a": Training(loss), "b": Training(loss)}, ids, ids, 50, 4, QuietProgress(), held_out_batches=2
    )
    assert result["a"] == result["b"]
    assert result["a"][-1].cross_entropy < result["a"][0].cross_entropy
