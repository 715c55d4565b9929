"""The variants that the loss benchmark compares are the same function, and the benchmark runs without a record."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import loss as benchmark
from benchmarks.loss_variants import SHAPES, Inputs, variants_for
from benchmarks.record import RESULTS
from costbank.loss import EMOOptions
from tests.loss.oracle import token_losses

TINY = SHAPES["tiny"]
EVERY = [*variants_for(TINY, "cpu")]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch):
    """With this little data, several threads mostly wait for each other, most of all if other tests run too."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("ignored", [0.0, 0.2], ids=["all labels", "a fifth ignored"])
@pytest.mark.parametrize("name", EVERY)
def test_every_variant_is_the_function_of_its_objective_and_costs(name, ignored):
    shape = replace(TINY, ignored=ignored)
    variant = variants_for(shape, "cpu")[name]
    inputs = Inputs(shape, "cpu")
    costs = variant.costs(inputs)
    loss = variant.loss(inputs, costs)
    loss.backward()

    hidden, weight = (tensor.detach().double().requires_grad_() for tensor in (inputs.hidden, inputs.weight))
    kept = inputs.labels != -100
    assert bool(kept.all()) == (ignored == 0)
    losses = token_losses(hidden @ weight.T, inputs.labels, costs, EMOOptions(objective=variant.objective))
    expected = losses.sum() / kept.sum()
    expected.backward()
    torch.testing.assert_close(loss.detach().double(), expected.detach(), rtol=1e-5, atol=1e-5)
    for tensor, exact in ((inputs.hidden, hidden), (inputs.weight, weight)):
        torch.testing.assert_close(tensor.grad.double(), exact.grad, rtol=1e-5, atol=1e-5)


def test_variants_of_dense_costs_have_the_same_loss_and_gradients():
    inputs = Inputs(TINY, "cpu")
    results = {}
    for name, variant in variants_for(TINY, "cpu").items():
        if name in ("dense", "dense, full logits", "straightforward EMO", "published EMOLoss"):
            loss = variant.loss(inputs, variant.costs(inputs))
            results[name] = (loss.detach(), *torch.autograd.grad(loss, (inputs.hidden, inputs.weight)))
    first = results.pop("dense")
    assert len(results) >= 2
    for others in results.values():
        torch.testing.assert_close(others, first, rtol=1e-5, atol=1e-5)


def test_a_table_has_no_token_twice_and_never_the_token_itself():
    ids, costs = Inputs(SHAPES["small"], "cpu").table()
    assert ids.shape == (8192, 64)
    whole = torch.cat((torch.arange(8192)[:, None], ids.long()), dim=1).sort(dim=1).values
    assert (whole.diff(dim=1) > 0).all()
    assert (costs.diff(dim=1) >= 0).all()
    assert whole.min() == 0
    assert whole.max() == 8191


def test_labels_are_the_low_ids_mostly_and_a_share_is_ignored():
    labels = Inputs(SHAPES["small"], "cpu").labels
    assert 0.3 < (labels < 32).float().mean() < 0.6
    assert (labels >= 0).all()
    assert 0.1 < (Inputs(replace(TINY, tokens=1000, ignored=0.2), "cpu").labels == -100).float().mean() < 0.3


def test_a_ratio_is_of_times_of_the_same_round():
    times = benchmark.Times({"slow": [2.0, 30.0], "fast": [1.0, 10.0]})
    assert times.ratios("slow", "fast") == [2.0, 3.0]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux's /proc")
def test_a_tiny_run_prints_every_variant_and_records_nothing(capsys):
    before = RESULTS.read_bytes() if RESULTS.exists() else None
    benchmark.main(["--shapes", "tiny", "--rounds", "1", "--memory-runs", "0", "--no-record"])
    benchmark.main(["--shapes", "tiny", "--variants", "dense", "--rounds", "1", "--memory-runs", "1", "--no-record"])
    printed = capsys.readouterr().out
    assert all(f"| {name} |" in printed for name in EVERY)
    assert printed.count("| dense |") == 2
    assert (RESULTS.read_bytes() if RESULTS.exists() else None) == before


@pytest.mark.parametrize("given", [["--shapes", "huge"], ["--shapes", "tiny", "--variants", "sparse"]])
def test_an_unknown_name_is_refused_and_the_known_ones_are_listed(given):
    with pytest.raises(SystemExit, match=r"choose from .*(32k|dense)"):
        benchmark.main([*given, "--no-record"])


@pytest.mark.slow
def test_memory_of_full_logits_is_at_least_theirs():
    """A check of the measurement itself: the sizes of logits, their softmax and its gradient are known."""
    small = SHAPES["small"]
    logits_mb = small.tokens * small.vocab * 4 / 1e6
    (full,) = benchmark.peak_mb("F.cross_entropy", small, 1, "cpu")
    (chunked,) = benchmark.peak_mb("cross-entropy", small, 1, "cpu")
    assert 2 * logits_mb < full < 5 * logits_mb
    assert 0.15 * logits_mb < chunked < logits_mb / 2 < full / 4
