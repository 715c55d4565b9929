from pathlib import Path

import pytest
import sentencepiece

from costbank.errors import InputNotFoundError, TokenizerError, UsageError
from costbank.tokenizers import load_tokenizer
from costbank.tokenizers.train import train_sentencepiece
from costbank.vocab import TokenStatus

SAMPLES = ["Hello world, the king!", "naïve café 日本語 🙂", "x = {1: 'a'}  # code\tand tabs", "Ünïcödé ﬁ"]


@pytest.mark.parametrize("sample", SAMPLES)
def test_the_bytes_of_the_ids_are_the_normalized_text(news_model: Path, sample: str):
    tokenizer = load_tokenizer(news_model)
    ids, ends = tokenizer.encode([sample])
    text = b"".join(tokenizer.vocab.token(i) for i in ids.tolist()).decode()
    processor = sentencepiece.SentencePieceProcessor(model_file=str(news_model))
    assert text.removeprefix(" ") == processor.normalize(sample).replace("▁", " ").removeprefix(" ")
    assert ends.tolist() == [len(ids)]


@pytest.mark.parametrize("name", ["english.txt", "japanese.txt"])
def test_a_real_model_gives_real_text_back(shared_data: Path, name: str):
    tokenizer = load_tokenizer(shared_data / "llama2.model")
    text = (shared_data / name).read_bytes().decode("utf-8")[:200_000].replace("\r\n", "\n")
    ids, _ = tokenizer.encode([text])
    assert b"".join(tokenizer.vocab.token(i) for i in ids.tolist()).decode() == " " + text


@pytest.mark.parametrize("text", ["a\r\n\tb = {1: '🙂👩‍👩‍👧'}\n\n", "日本語\u3000です。", "e\u0301 ﬁ  two", "\x00\x07"])
def test_a_real_model_gives_odd_text_back(shared_data: Path, text: str):
    tokenizer = load_tokenizer(shared_data / "llama2.model")
    ids, _ = tokenizer.encode([text])
    assert b"".join(tokenizer.vocab.token(i) for i in ids.tolist()).decode() == " " + text


def test_statuses_come_from_the_model(shared_data: Path):
    vocab = load_tokenizer(shared_data / "llama2.model").vocab
    assert vocab.size == 32_000
    assert vocab.status_counts() == {"ok": 31_741, "byte": 243, "special": 3, "unused": 13, "unseen": 0}
    assert vocab.status_of(3) is TokenStatus.BYTE
    assert vocab.token(3) == b"\0"
    assert vocab.token(vocab.find("▁king")) == b" king"
    assert vocab.display(1) == "<s>"


def test_texts_are_encoded_each_on_its_own(news_model: Path):
    tokenizer = load_tokenizer(news_model)
    ids, ends = tokenizer.encode(["the first", "", "the second"])
    assert ends.tolist()[0] == ends.tolist()[1]
    assert ids[: ends[0]].tolist() == tokenizer.encode(["the first"])[0].tolist()
    assert tokenizer.encode([])[0].tolist() == []


def test_training_twice_gives_the_same_vocabulary(news: Path, tmp_path: Path):
    prints = set()
    for name in ("a.model", "b.model"):
        prints.add(load_tokenizer(train_sentencepiece([news], tmp_path / name, 1_000, "bpe")).vocab.fingerprint)
    assert len(prints) == 1


def test_too_many_or_too_few_pieces_are_refused_with_a_number(tmp_path: Path):
    text = tmp_path / "text"
    text.write_text("a small text\n" * 10)
    with pytest.raises(TokenizerError) as caught:
        train_sentencepiece([text], tmp_path / "x.model", 5_000)
    assert "--vocab-size 2" in caught.value.hint
    with pytest.raises(TokenizerError) as caught:
        train_sentencepiece([text], tmp_path / "x.model", 262)
    assert "--vocab-size 267 or more" in caught.value.hint
    with pytest.raises(UsageError, match="no room"):
        train_sentencepiece([text], tmp_path / "x.model", 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text"]


def test_a_file_that_is_not_a_tokenizer_is_refused(tmp_path: Path, news: Path):
    with pytest.raises(InputNotFoundError):
        load_tokenizer(tmp_path / "missing.model")
    with pytest.raises(InputNotFoundError, match="no tokenizer in the folder"):
        load_tokenizer(tmp_path)
    with pytest.raises(TokenizerError, match="not a SentencePiece model"):
        load_tokenizer(news)
    (tmp_path / "noise").write_bytes(bytes(range(256)) * 50)
    with pytest.raises(TokenizerError):
        load_tokenizer(tmp_path / "noise")
