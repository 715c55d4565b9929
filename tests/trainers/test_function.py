"""The function for an unchanged Trainer: it leaves no hooks behind, and several Trainers can share it."""

import io
import pickle
from typing import Any

import pytest
import torch
import transformers as tf

from costbank.bank import Bank
from costbank.errors import UsageError
from costbank.loss import EMOLoss
from costbank.trainers.huggingface import compute_loss_func
from tests.trainers.conftest import llama
from tests.trainers.test_own_loss import ALIGNED, BERT, IDS, build

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def hooks(model: Any) -> int:
    return sum(len(part._forward_pre_hooks) + len(part._forward_hooks) for part in model.modules())


def with_decoder_ids(texts: Any) -> list[dict[str, torch.Tensor]]:
    return [{**row, "decoder_input_ids": row["input_ids"].roll(1)} for row in (texts[i] for i in range(len(texts)))]


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_a_function_leaves_no_hook_after_training(name: str, bank: Bank, arguments: Any, texts: Any):
    model, function = ALIGNED[name][0](), compute_loss_func(EMOLoss(bank))
    rows = with_decoder_ids(texts)
    args = arguments(gradient_accumulation_steps=2, eval_strategy="steps", eval_steps=2, per_device_eval_batch_size=8)
    trainer = tf.Trainer(model, args, train_dataset=rows, eval_dataset=rows, compute_loss_func=function,
                         callbacks=[function])  # fmt: skip
    trainer.train()
    assert hooks(model) == 0
    trainer.evaluate()
    assert hooks(model) == 0
    # Wrong batches are still refused, before training and after it.
    if name != "t5":
        with pytest.raises(UsageError, match="the batch has no decoder_input_ids"):
            trainer.evaluate(texts)
    trainer.train_dataset = texts
    with pytest.raises(UsageError, match="the batch has no decoder_input_ids"):
        trainer.train()


class Interrupted(tf.TrainerCallback):
    def __init__(self, at: str) -> None:
        self.at = at

    def __getattribute__(self, name: str) -> Any:
        if name == object.__getattribute__(self, "at"):
            raise KeyboardInterrupt
        return object.__getattribute__(self, name)


@pytest.mark.parametrize("at", ["on_substep_end", "on_step_end", "on_pre_optimizer_step", "forward", "on_log"])
def test_a_training_that_is_interrupted_leaves_a_model_that_can_be_called(
    at: str, bank: Bank, arguments: Any, texts: Any
):
    model, function = ALIGNED["bart"][0](), compute_loss_func(EMOLoss(bank))
    trainer = tf.Trainer(model, arguments(gradient_accumulation_steps=2), train_dataset=with_decoder_ids(texts),
                         compute_loss_func=function, callbacks=[function, Interrupted(at)])  # fmt: skip
    if at == "forward":

        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        handle = model.get_output_embeddings().register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    if at == "forward":
        handle.remove()
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    loaded = torch.load(stream, weights_only=False)
    for one in (model, loaded):
        for _ in range(3):
            one(input_ids=IDS)
        one.generate(IDS[:1], max_new_tokens=2)
        assert hooks(one) == 0


def test_one_function_of_two_trainers_keeps_the_shift_of_each(bank: Bank, arguments: Any, texts: Any):
    makes = {"bert": lambda: build("BertForMaskedLM", **BERT), "llama": llama}

    def trainer(name: str, function: Any) -> Any:
        return tf.Trainer(makes[name](), arguments(max_steps=1), train_dataset=texts, eval_dataset=texts,
                          compute_loss_func=function, callbacks=[function])  # fmt: skip

    def train(one: Any) -> float:
        one.train()
        return next(line["loss"] for line in one.state.log_history if "loss" in line)

    alone = {name: train(trainer(name, compute_loss_func(EMOLoss(bank)))) for name in makes}
    for order in (["bert", "llama"], ["llama", "bert"]):
        function = compute_loss_func(EMOLoss(bank))
        both = {name: trainer(name, function) for name in order}
        assert {name: train(both[name]) for name in order} == pytest.approx(alone, abs=1e-6)
        # The function cannot know which Trainer evaluates.
        with pytest.raises(UsageError, match="given to several Trainers") as caught:
            both["bert"].evaluate()
        assert "a function for each" in caught.value.hint
    same = {seed: trainer("llama", function := compute_loss_func(EMOLoss(bank))) for seed in (1, 2)}
    assert train(same[1]) == pytest.approx(alone["llama"], abs=1e-6)
    assert "eval_loss" in same[2].evaluate()
    assert pickle.loads(pickle.dumps(function)).shifts is None
