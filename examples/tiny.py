"""A tokenizer, a bank and token ids for the examples, made in a second from a page of text."""

import tempfile
from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

import costbank
from costbank import Bank, build_config

_PLACES = ("harbour", "garden", "kitchen", "station", "library", "valley")
_PEOPLE = ("sailor", "baker", "teacher", "doctor", "painter", "farmer")
_DOINGS = ("walks to", "looks at", "talks about", "waits near", "comes from", "sings in")
_TIMES = ("in the morning", "in the evening", "every day", "on Sundays", "in winter", "when it rains")

TEXTS = [f"The {who} {does} the {where} {when}." for who in _PEOPLE for does in _DOINGS for where in _PLACES
         for when in _TIMES]  # fmt: skip


# With tensors this small, threads mostly wait for each other.
torch.set_num_threads(1)


@cache
def tokenizer() -> Tokenizer:
    """A byte-level BPE of 340 tokens; the first two are for padding and the end of a text."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.train_from_iterator(TEXTS, trainers.BpeTrainer(
        vocab_size=340, special_tokens=["<pad>", "<end>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    ))  # fmt: skip
    return bpe


def bank() -> Bank:
    """A bank of the spelling of the tokenizer's tokens, in a temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix="costbank-example-"))
    tokenizer().save(str(folder / "tokenizer.json"))
    return costbank.build(build_config(
        source="spelling", tokenizer=folder / "tokenizer.json", name="tiny", store=folder / "store"
    ))  # fmt: skip


def batch(size: int = 16) -> torch.Tensor:
    """Token ids [size, length]. Each row is a text with its end token, padded with −100."""
    encoder = tokenizer()
    chosen = torch.randint(len(TEXTS), (size,)).tolist()
    rows = [torch.tensor([*encoder.encode(TEXTS[i]).ids, 1]) for i in chosen]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
