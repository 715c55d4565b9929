"""Commands, options and choices that do not exist, and the suggestions of the hints."""

import pytest

CASES = {
    "nearst": "did you mean costbank nearest?",
    "Nearest": "did you mean costbank nearest?",
    "neighbours": "did you mean costbank nearest?",
    "ls": "did you mean costbank list?",
    "help": "did you mean costbank --help?",
    "train": "did you mean costbank tokenizer train?",
    "frobnicate": "see costbank --help",
    "tokenizer trian": "did you mean costbank tokenizer train?",
    "nearest a b --stroe x": "did you mean --store?",
    "nearest a b --JSON": "did you mean --json?",
    "show --hepl": "did you mean --help?",
    "build --tokeniser x": "did you mean --tokenizer?",
    "build --epochs 3": "did you mean --set word2vec.epochs=…?",
    "build --source cooccurrence --window 3": "did you mean --set cooccurrence.window=…?",
    "build --window 3 --source=word2vec": "did you mean --set word2vec.window=…?",
    "build --window 3": "did you mean --set word2vec.window=… or --set cooccurrence.window=…?",
    "build --source spelling --vector-size 9": "did you mean --set spelling.dim=…?",
    "build --k 3": "did you mean --set neighbors.k=…?",
    "tokenizer train x --out y --type BPE": "did you mean bpe?",
    "tokenizer train x --out y --text-field body": "did you mean --set corpus.text_field=…?",
    "tokenizer train x --out y --epochs 3": "see costbank tokenizer train --help",
    "export news --format costs-npy --out x --dtype f16": "did you mean F16?",
    "export news --format Word2Vec_Text --out x": "did you mean word2vec-text?",
    "export news --format numpy --out x": "did you mean npy?",
    "settings LM_Head": "did you mean lm-head?",
    "show News": "did you mean news?",
    "show nwes": "did you mean news?",
    "show -v": "see costbank show --help",
}


@pytest.mark.parametrize(("typed", "hint"), CASES.items(), ids=CASES)
def test_the_hint_names_what_was_meant(run, typed: str, hint: str):
    result = run(*typed.split())
    assert result.status in (2, 3)
    assert result.out == ""
    error, hinted = result.err.splitlines()
    assert error.startswith("error: ")
    assert hinted.startswith(f"hint: {hint}")
