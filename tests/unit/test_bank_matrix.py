import subprocess
import sys

import numpy as np
import pytest
import torch

from costbank.bank import Bank
from costbank.errors import ShapeError, TokenNotFoundError, UsageError
from costbank.loss import open_costs

IN_JAX = """
import sys
import numpy as np
from costbank import open_bank
try:
    import jax.numpy as jnp
except ModuleNotFoundError:
    print("no jax")
    raise SystemExit
bank = open_bank(sys.argv[1])
rows = jnp.from_dlpack(bank.matrix("dlpack", missing="own-axis"))
assert rows.dtype == jnp.float32
np.testing.assert_array_equal(np.asarray(rows), bank.matrix(missing="own-axis"))
print("equal")
"""


@pytest.fixture
def unseen(news_bank: Bank) -> np.ndarray:
    """The ids without a vector; there are at least two."""
    ids = np.flatnonzero(~news_bank.usable)
    assert len(ids) > 1
    return ids


def test_the_matrix_is_a_copy_of_all_rows(news_bank: Bank):
    rows = news_bank.matrix()
    assert rows.dtype == np.float32
    assert rows.flags.writeable
    assert rows.flags.c_contiguous
    assert np.array_equal(rows, news_bank.vectors())
    rows[:] = 7
    assert np.array_equal(news_bank.matrix(), news_bank.vectors())


@pytest.mark.parametrize("missing", ["zero", "own-axis"])
def test_each_kind_holds_the_same_numbers(news_bank: Bank, missing: str):
    rows = news_bank.matrix("numpy", missing=missing)
    tensor = news_bank.matrix("torch", missing=missing)
    assert tensor.dtype == torch.float32
    assert np.array_equal(tensor.numpy(), rows)
    assert torch.equal(torch.from_dlpack(news_bank.matrix("dlpack", missing=missing)), tensor)
    assert np.array_equal(np.from_dlpack(news_bank.matrix("dlpack", missing=missing)), rows)


@pytest.mark.slow
def test_jax_takes_it(news_bank: Bank):
    # JAX starts threads, and warns about every later fork in its process, so it runs in a separate one.
    result = subprocess.run(
        [sys.executable, "-c", IN_JAX, str(news_bank.path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    if result.stdout.strip() == "no jax":
        pytest.skip("JAX is not installed")
    assert result.stdout.strip() == "equal"


def test_a_tensor_can_be_trained_on(news_bank: Bank):
    tensor = news_bank.matrix("torch")
    tensor.mul_(2)
    assert torch.equal(tensor / 2, news_bank.matrix("torch"))


@pytest.mark.parametrize("width", [1, 1_500, 2_000, 2_048, 5_000])
def test_the_width_means_what_it_means_to_the_loss(news_bank: Bank, width: int):
    rows = news_bank.matrix("torch", vocab_size=width)
    assert torch.equal(rows, open_costs(news_bank, vocab_size=width).vectors)
    assert not rows[news_bank.size :].any()


def test_the_order_is_that_of_the_logits(news_bank: Bank, random: np.random.Generator):
    order = random.permutation(news_bank.size)
    assert np.array_equal(news_bank.matrix(order=order), news_bank.vectors()[order])
    picked = np.array([5, -1, 400, 5, -1], np.int32)
    rows = news_bank.matrix(order=picked)
    assert rows.shape == (5, news_bank.dim)
    assert np.array_equal(rows[[0, 2, 3]], news_bank.vectors()[[5, 400, 5]])
    assert not rows[[1, 4]].any()


def test_with_an_own_axis_each_row_has_unit_length(news_bank: Bank, unseen: np.ndarray):
    rows = news_bank.matrix(missing="own-axis", vocab_size=news_bank.size + 48)
    assert rows.shape == (news_bank.size + 48, news_bank.dim + 1)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert np.array_equal(rows[: news_bank.size, :-1], news_bank.vectors())
    without = np.r_[unseen, news_bank.size : news_bank.size + 48]
    assert np.array_equal(np.flatnonzero(rows[:, -1]), without)


def test_tokens_on_that_axis_cost_one_to_others_and_nothing_to_each_other(news_bank: Bank, unseen: np.ndarray):
    rows = news_bank.matrix(missing="own-axis")
    the = news_bank.vocab.find("▁the")
    costs = 1 - rows @ rows[unseen[0]]
    assert costs[the] == 1 == news_bank.cost(the, int(unseen[0]))
    assert costs[unseen[1]] == 0
    assert news_bank.cost(int(unseen[1]), int(unseen[0])) == 1
    # The costs of tokens with a vector do not change.
    assert 1 - rows[the] @ rows[400] == pytest.approx(news_bank.cost(the, 400), abs=1e-6)


def test_a_token_that_the_order_lacks_is_on_that_axis_too(news_bank: Bank):
    rows = news_bank.matrix(order=np.array([400, -1]), missing="own-axis")
    assert rows[1].tolist() == [0.0] * news_bank.dim + [1.0]
    assert rows[0, -1] == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message", "hint"),
    [
        ({"kind": "tensorflow"}, UsageError, "kind is 'tensorflow'", "numpy, torch, dlpack"),
        ({"missing": "nan"}, UsageError, "missing is 'nan'", "zero, own-axis"),
        ({"vocab_size": 0}, ShapeError, "vocab_size is 0", "width of the logits"),
        ({"vocab_size": 2, "order": np.array([0, 1])}, UsageError, "both vocab_size and order", "give only order"),
        ({"order": np.array([0, 2_000])}, TokenNotFoundError, "id 2000, but this bank has ids 0 to 1,999", "-1"),
        ({"order": np.array([0, -2])}, TokenNotFoundError, "id -2", "-1"),
        ({"order": np.zeros((2, 2), int)}, ShapeError, r"int64 of shape \[2, 2\]", r"\[width\]"),
        ({"order": np.array([0.0, 1.0])}, ShapeError, "float64", "integers"),
        ({"order": np.array([], int)}, ShapeError, r"shape \[0\]", r"\[width\]"),
    ],
)
def test_impossible_arguments_are_refused(news_bank: Bank, arguments: dict, error: type, message: str, hint: str):
    with pytest.raises(error, match=message) as raised:
        news_bank.matrix(**arguments)
    assert hint.replace("\\", "") in raised.value.hint


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "loads_torch"), [("numpy", False), ("dlpack", False), ("torch", True)])
def test_only_a_tensor_needs_torch(news_bank: Bank, kind: str, loads_torch: bool):
    code = (
        f"import sys, costbank; costbank.open_bank({str(news_bank.path)!r}).matrix({kind!r});"
        "print(*(name for name in ('torch', 'jax', 'scipy', 'faiss') if name in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.split() == (["torch"] if loads_torch else [])


def test_a_tensor_without_torch_names_the_extra(news_bank: Bank, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UsageError, match="'torch', which is not installed") as raised:
        news_bank.matrix("torch")
    assert raised.value.hint == "pip install 'costbank[train]'"
