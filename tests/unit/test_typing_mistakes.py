"""Mistyped settings, sources, values and banks, and their error messages."""

import re
import shutil
from datetime import date, datetime, time
from pathlib import Path

import pytest

from costbank.bank import Bank, Store
from costbank.config import like_settings, load_config, settings, settings_called
from costbank.errors import BankNotFoundError, UsageError
from costbank.suggestions import closest

GIVEN = {"source": "word2vec", "tokenizer": "a.model"}

BAD_VALUES = (
    "", "many", "-1", "0", "1.5", "nan", "inf", "-inf", "1e400", "99999999999999999999999", "true", "[]", "[1, 2]",
    "[[]]", '["a", 3]', "{}", "{x = 1}", "2024-01-01", "07:30:00", "2024-01-01T07:30:00Z", "4GB", "4 parsecs", "\x00",
    "x" * 5_000, "'''quoted'''", "é", "../..", "None", "null",
)  # fmt: skip

TYPED_VALUES = (
    3, -1, 2.5, True, [], [3], [[]], [{}], {"x": 1}, b"bytes", datetime(2024, 1, 1), date(2024, 1, 1), time(7), None,
)  # fmt: skip
"""Values from a TOML file or a caller in Python."""

PYDANTIC = re.compile(
    r"input should|should be|valid (integer|number|string|boolean|tuple|list|path|dictionary)|unable to|value error"
    r"|instance of|type=|pydantic|parse|finite|is required|extra inputs|byte string|unicode|literal|at most \d+ items",
    re.IGNORECASE,
)


@pytest.mark.parametrize("path", settings())
def test_every_bad_value_of_a_setting_gives_our_own_message(path: str):
    """A value is accepted, or the error names the setting, the value and the accepted values."""
    refused = [_refusal(GIVEN, [f"{path}={text}"]) for text in BAD_VALUES]
    refused += [_refusal(GIVEN | {path: value}, []) for value in TYPED_VALUES if path != "source" or value is not None]
    refused = [error for error in refused if error]
    for error in refused:
        assert path in error.message
        assert not PYDANTIC.search(re.sub(r"'[^']*'", "", error.message)), error.message
        assert error.hint
        assert len(error.message) < 400
    assert refused


def _refusal(given: dict, assignments: list[str]) -> UsageError | None:
    try:
        load_config(given, assignments)
    except UsageError as error:
        return error
    return None


@pytest.mark.parametrize("section", sorted({path.split(".")[0] for path in settings() if "." in path}))
def test_a_section_given_a_value_names_its_settings(section: str):
    for text in ("3", "x", "[]", "true"):
        with pytest.raises(UsageError) as caught:
            load_config(GIVEN, [f"{section}={text}"])
        assert f"{section} is a section of settings" in caught.value.message
        assert next(path for path in settings() if path.startswith(f"{section}.")) in caught.value.hint


def test_the_search_for_foreign_words_would_find_them():
    from pydantic import ValidationError

    from costbank.sources.registry import AllSettings

    with pytest.raises(ValidationError) as caught:
        AllSettings.model_validate({"source": 3, "word2vec": {"epochs": "x", "sg": 7}, "neighbors": 4, "nothing": 1})
    assert all(PYDANTIC.search(problem["msg"]) for problem in caught.value.errors())


@pytest.mark.parametrize(
    ("source", "typed", "meant"),
    [
        ("cooccurrence", "window", ["cooccurrence.window"]),
        ("word2vec", "window", ["word2vec.window"]),
        (None, "window", ["word2vec.window", "cooccurrence.window"]),
        ("word2vec", "cooccurrence.epochs", ["word2vec.epochs"]),
        ("word2vec", "Word2Vec.Epochs", ["word2vec.epochs"]),
        ("word2vec", "word2vec.min-count", ["word2vec.min_count"]),
        ("word2vec", "minCount", ["word2vec.min_count"]),
        ("cooccurrence", "vector_size", ["cooccurrence.dim"]),
        ("spelling", "size", ["spelling.dim"]),
        ("word2vec", "iter", ["word2vec.epochs"]),
        ("word2vec", "epoch", ["word2vec.epochs"]),
        ("word2vec", "k", ["neighbors.k"]),
        ("lm-head", "dtype", ["storage.dtype"]),
        ("lm-head", "lm-head.model", ["lm_head.model"]),
        ("lm-head", "tensor", ["lm_head.tensor"]),
        ("vectors", "tensor", ["vectors.tensor"]),
        ("vectors", "vectors.path", ["vectors.path"]),
        ("word2vec", "seperator", ["corpus.separator"]),
        ("transfer", "transfer.doner", ["transfer.donor"]),
        ("word2vec", "frobnicate", []),
        ("word2vec", "word2vec.", []),
    ],
)
def test_a_setting_is_found_by_what_was_typed(source: str | None, typed: str, meant: list[str]):
    assert like_settings(typed, source) == meant


def test_a_setting_of_another_name_is_not_called_so():
    assert settings_called("epoch", "word2vec") == []
    assert settings_called("EPOCHS", "word2vec") == ["word2vec.epochs"]


@pytest.mark.parametrize(
    ("assignment", "hint"),
    [
        ("source=Word2Vec", "did you mean word2vec?"),
        ("source=lm_head", "did you mean lm-head?"),
        ("source=coocurrence", "did you mean cooccurrence?"),
        ("source=glove", "did you mean vectors?"),
        ("tokenizer_kind=sentence-piece", "did you mean sentencepiece?"),
        ("tokenizer_kind=HuggingFace", "did you mean huggingface?"),
        ("corpus.format=json", "did you mean jsonl?"),
        ("corpus.format=raw_u32", "did you mean raw-u32?"),
        ("corpus.documents=paragraphs", "did you mean paragraph?"),
        ("storage.dtype=bf16", "did you mean BF16?"),
        ("neighbors.method=int-8", "did you mean int8?"),
        ("corpus.on_error=Skip", "did you mean skip?"),
        ("window=3", "did you mean word2vec.window: tokens of context on each side?"),
        ("corpus=a.txt", "did you mean corpus.files? the section has"),
        ("vectors=a.txt", "did you mean vectors.path? the section has"),
        ("frobnicate=3", "`costbank settings word2vec` lists the settings"),
    ],
)
def test_a_near_miss_is_named(assignment: str, hint: str):
    with pytest.raises(UsageError) as caught:
        load_config(GIVEN, [assignment])
    assert caught.value.hint.startswith(hint)


def test_several_mistakes_are_reported_together(tmp_path: Path):
    file = tmp_path / "c.toml"
    file.write_text('source = "cooccurence"\nwindow = 3\n[word2vec]\nepochs = "x"\n')
    with pytest.raises(UsageError) as caught:
        load_config({}, (), file)
    for part in ("source is 'cooccurence'", "no setting window", "word2vec.epochs is 'x'"):
        assert part in caught.value.message
    assert "did you mean cooccurrence?" in caught.value.hint


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("NEWS", "news"), ("new", "news"), ("nwes", "news"), ("My_Bank", "my-bank"), ("mybank", "my-bank"), ("zzz", None)],
)
def test_a_bank_is_found_by_what_was_typed(news_bank: Bank, tmp_path: Path, typed: str, meant: str | None):
    for name in ("news", "my-bank"):
        shutil.copytree(news_bank.path.parent, tmp_path / name)
    with pytest.raises((BankNotFoundError, UsageError)) as caught:
        Store(tmp_path).resolve(typed)
    if meant is None:
        assert caught.value.hint == "the banks are: my-bank, news"
    else:
        assert caught.value.hint.startswith(f"did you mean {meant}?")
    with pytest.raises((BankNotFoundError, UsageError)) as caught:
        Store(tmp_path).resolve(f"{typed}@{news_bank.id[:6].upper()}")
    assert meant is None or f"did you mean {meant}@{news_bank.id[:6]}?" in caught.value.hint


def test_a_store_of_many_banks_names_some(tmp_path: Path):
    for number in range(30):
        (tmp_path / f"bank{number:02}" / f"{number:016x}").mkdir(parents=True)
        (tmp_path / f"bank{number:02}" / f"{number:016x}" / "manifest.json").write_text("{}")
    with pytest.raises(BankNotFoundError) as caught:
        Store(tmp_path).resolve("xyz")
    assert caught.value.hint.endswith("bank19 and 10 more")


@pytest.mark.parametrize(
    ("typed", "known", "meant"),
    [
        ("Show", ["show", "list"], "show"),
        ("l", ["list", "show"], None),
        ("ver", ["verify", "list"], "verify"),
        ("", ["show"], None),
        ("!!!", ["show"], None),
        ("shwo", ["show", "list"], "show"),
        ("tok", ["token", "tokenizer"], "token"),
    ],
)
def test_the_most_likely_name_is_suggested(typed: str, known: list[str], meant: str | None):
    assert closest(typed, known) == meant
