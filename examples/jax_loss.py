"""The EMO loss in JAX, compiled and differentiated, with the costs of a bank.

    pip install jax 'costbank[build,train]'
    python examples/jax_loss.py

JAX gets the rows of the bank through DLPack. At the end, the loss and its gradient are compared with those of
costbank.loss; PyTorch is needed only for that.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from costbank import Bank, build, build_config
from costbank.loss import DenseCosts, EMOOptions
from costbank.loss import emo_loss as torch_emo_loss
from costbank.tokenizers.train import train_sentencepiece

try:
    import jax
    import jax.numpy as jnp
except ModuleNotFoundError:
    sys.exit("This example needs JAX: pip install jax")

TEXT = """\
The gardener waters the roses early, and the gardeners watering the beds sing quietly.
A painter paints the garden; painting roses quickly, she painted the quiet bed of water.
Early singers sing early songs, and quieter singers sing the songs of the garden.
The waters of the river rise quickly, rising water quietly covers the early paintings.
"""
IGNORED = -100


def tiny_bank(folder: Path) -> Bank:
    """A bank of the spelling of 400 tokens. Use a bank of your model or your corpus instead."""
    text = folder / "text.txt"
    text.write_text(TEXT)
    model = train_sentencepiece([text], folder / "tiny.model", vocab_size=400, model_type="bpe")
    return build(build_config(source="spelling", tokenizer=model, name="tiny", store=folder / "store"))


def emo_loss(logits: jax.Array, labels: jax.Array, rows: jax.Array) -> jax.Array:
    """The mean of ½ (CE + min(CE / K, 3) · K) over labels that are not ignored; the minimum has no gradient.

    logits [n, vocab], labels [n], rows [vocab, dim] of unit or zero rows. As in costbank.loss, the cost of the label
    itself is 0 by definition, not 1 − ⟨e_t, e_t⟩, which is not exactly 0 in float32.
    """
    counted = labels != IGNORED
    targets = jnp.where(counted, labels, 0)
    log_p = jax.nn.log_softmax(logits)
    ce = -jnp.take_along_axis(log_p, targets[:, None], axis=1)[:, 0]
    costs = jnp.maximum(1 - rows[targets] @ rows.T, 0).at[jnp.arange(len(targets)), targets].set(0)
    expected = (jnp.exp(log_p) * costs).sum(axis=1)
    weight = jax.lax.stop_gradient(jnp.minimum(ce / (expected + 1e-10), 3.0))
    losses = jnp.where(counted, 0.5 * (ce + weight * expected), 0.0)
    return losses.sum() / jnp.maximum(counted.sum(), 1)


def main() -> None:
    with TemporaryDirectory() as folder:
        bank = tiny_bank(Path(folder))
        rows, same_rows = jnp.from_dlpack(bank.matrix("dlpack")), bank.matrix("torch")
    random = np.random.default_rng(0)
    logits = 3 * random.standard_normal((64, bank.size), dtype=np.float32)
    labels = random.integers(0, bank.size, 64)
    labels[::5] = IGNORED

    value_and_gradient = jax.jit(jax.value_and_grad(emo_loss))
    # By default, accelerators multiply in bfloat16, which would give costs of only three digits.
    with jax.default_matmul_precision("highest"):
        value, gradient = value_and_gradient(jnp.asarray(logits), jnp.asarray(labels), rows)
    print(f"JAX {jax.__version__} on {jax.default_backend()}: loss {float(value):.6f} over {rows.shape[0]} tokens")
    compare(DenseCosts(same_rows), logits, labels, float(value), np.asarray(gradient))


def compare(costs: DenseCosts, logits: np.ndarray, labels: np.ndarray, value: float, gradient: np.ndarray) -> None:
    """Compare JAX's results with costbank.loss, relative to the value and to the largest entry of the gradient."""
    leaf = torch.from_numpy(logits).requires_grad_()
    loss = torch_emo_loss(leaf, torch.from_numpy(labels), costs, EMOOptions(mixing="emo1_clamped"))
    loss.backward()
    assert leaf.grad is not None
    expected = leaf.grad.numpy()
    value_error = abs(value - loss.item()) / loss.item()
    gradient_error = float(np.abs(gradient - expected).max() / np.abs(expected).max())
    print(f"costbank.loss: {loss.item():.6f}; relative difference {value_error:.1e}, of gradients {gradient_error:.1e}")
    if max(value_error, gradient_error) > 1e-5:
        sys.exit("the results differ by more than 1e-5")
    print("the results agree within 1e-5")


if __name__ == "__main__":
    main()
