import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from costbank_cli.choices import ENGINES, EXPORT_FORMATS, ON_ERROR, SOURCES
from costbank_cli.command_line import COMMANDS, command_line
from costbank_cli.commands import build as build_module

import costbank
from costbank.bank import Bank
from costbank.config import BuildConfig
from costbank.vocab import TokenMatch


def test_help_names_every_command_as_the_command_itself_does(run):
    shown = run("--help").out
    for name, short in COMMANDS.items():
        command = command_line.get_command(None, name)
        assert command is not None
        assert (command.help or "").splitlines()[0] == short
        assert f"  {name} " in shown
        assert run(name, "--help").status == 0


@pytest.mark.parametrize("group", [(), ("tokenizer",)])
def test_a_group_without_a_command_prints_its_help(run, group: tuple[str, ...]):
    bare, with_help = run(*group), run(*group, "--help")
    assert (bare.status, bare.err) == (0, "")
    assert bare.out == with_help.out
    assert "Commands:" in bare.out


def test_every_command_takes_json():
    for name in COMMANDS:
        command = command_line.get_command(None, name)
        for leaf in getattr(command, "commands", {}).values() or [command]:
            assert any("--json" in option.opts for option in leaf.params), name


def test_nearest_prints_a_table(run, news_bank: Bank):
    result = run("nearest", "news", "▁the", "-k", "3")
    assert result.status == 0
    neighbors = news_bank.nearest(news_bank.vocab.find("▁the"), 3)
    lines = result.out.splitlines()
    assert lines[0].split() == ["cost", "id", "nearest", "to", "▁the"]
    assert [line.split() for line in lines[1:]] == [[f"{n.cost:.4f}", str(n.id), n.text] for n in neighbors]


def test_nearest_prints_json_and_nothing_else(run, news_bank: Bank):
    result = run("nearest", "news", "▁the", "-k", "2", "--json")
    document = json.loads(result.out)
    token = news_bank.vocab.find("▁the")
    assert document["bank"] == "news"
    assert document["id"] == news_bank.id
    count = int(news_bank.vocab.counts[token])
    assert document["token"] == {"id": token, "text": "▁the", "status": "ok", "count": count, "other": None}
    assert [n["id"] for n in document["neighbors"]] == news_bank.neighbors.ids[token, :2].tolist()
    assert result.err == ""


def test_a_word_finds_the_word_token_and_a_note_names_the_piece(run, news_bank: Bank):
    vocab = news_bank.vocab
    word, piece, text = next(
        (vocab.ids_of(b" " + vocab.token(i))[0], i, vocab.token(i).decode())
        for i in range(300, vocab.size)
        if vocab.ids_of(b" " + vocab.token(i)) and news_bank.has_vector(vocab.ids_of(b" " + vocab.token(i))[0])
    )
    result = run("nearest", "news", text, "-k", "1")
    assert f"nearest to {vocab.display(word)}\n" in result.out
    assert f"the same text also matches piece:{text} (id {piece})" in result.err
    document = json.loads(run("nearest", "news", text, "-k", "1", "--json").out)
    assert document["token"] == asdict(vocab.describe(TokenMatch(word, piece)))
    assert document["token"]["other"]["id"] == piece
    result = run("cost", "news", text, f"piece:{text}", text)
    assert result.err.count("note: ") == 1
    document = json.loads(run("cost", "news", text, f"piece:{text}", "--json").out)
    assert [token["id"] for token in document["tokens"]] == [word, piece]
    assert [token["other"] is None for token in document["tokens"]] == [False, True]
    assert document["tokens"][1]["count"] == int(vocab.counts[piece])


def test_nearest_to_a_token_without_a_vector_says_why(run):
    result = run("nearest", "news", "<s>")
    assert (result.status, result.out) == (0, "")
    assert "<s> (id 1) has no vector (special)" in result.err


def test_cost_prints_a_matrix(run, news_bank: Bank):
    result = run("cost", "news", "▁the", "▁of", "--json")
    document = json.loads(result.out)
    the, of = news_bank.vocab.find("▁the"), news_bank.vocab.find("▁of")
    assert [token["id"] for token in document["tokens"]] == [the, of]
    assert document["costs"] == [[0, news_bank.cost(the, of)], [news_bank.cost(the, of), 0]]
    assert f"{news_bank.cost(the, of):.4f}" in run("cost", "news", "▁the", "▁of").out


def test_show_says_what_the_bank_is(run, news_bank: Bank):
    shown = run("show", "news").out
    for fact in (
        f"news@{news_bank.id}",
        "2,000 × 24, F32",
        "64 per token, exact",
        "word2vec.epochs=2",
        "storage.dtype=F32",
        "gensim 4.4.0",
    ):
        assert fact in shown
    document = json.loads(run("show", "news", "--json").out)
    assert document["id"] == news_bank.id
    examples = shown.partition("nearest, by ascending cost\n")[2].splitlines()
    assert [line.split() for line in examples] == [[one["token"], *one["nearest"]] for one in document["examples"]]
    first = document["examples"][0]
    assert first["nearest"] == [neighbor.text for neighbor in news_bank.nearest(first["token"], 5)]


def test_list_shows_banks_and_damaged_ones_too(run, news_bank: Bank, tmp_path: Path):
    assert f"news@{news_bank.id}*" in run("list").out
    for name in ("whole", "broken"):
        shutil.copytree(news_bank.path.parent, tmp_path / name)
    (tmp_path / "broken" / news_bank.id / "index.faiss").unlink()
    listed = {entry["name"]: entry for entry in json.loads(run("list", "--store", tmp_path, "--json").out)}
    assert "problem" not in listed["whole"]
    assert "index.faiss is missing" in listed["broken"]["problem"]
    assert "index.faiss is missing" in run("list", "--store", tmp_path).out


def test_list_of_an_empty_store_says_what_to_do(run, tmp_path: Path):
    result = run("list", "--store", tmp_path / "none")
    assert (result.status, result.out) == (0, "")
    assert "costbank build" in result.err
    assert json.loads(run("list", "--store", tmp_path / "none", "--json").out) == []


def test_verify_names_every_file(run, news_bank: Bank):
    document = json.loads(run("verify", "news", "--json").out)
    assert document["ok"]
    assert {file["name"] for file in document["files"]} == {"manifest.json", *news_bank.manifest.files}


def test_build_takes_files_as_a_shell_gives_them(run, news: Path, news_model: Path, tmp_path: Path):
    lines = news.read_text("utf-8").splitlines()
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("\n".join(lines[number::3]))
    result = run(
        "build", "--source", "word2vec", "--corpus", *sorted(tmp_path.glob("*.txt")), "--tokenizer", news_model,
        "--store", tmp_path / "store", "--cache", tmp_path / "cache", "--set", "word2vec.dim=8",
        "--set", "word2vec.epochs=1", "--json",
    )  # fmt: skip
    document = json.loads(result.out)
    assert document["name"] == "news-word2vec"
    assert document["facts"]["corpus_documents"] == len([line for line in lines if line.strip()])
    inputs = json.loads(run("show", "--store", tmp_path / "store", "news-word2vec", "--json").out)["inputs"]
    assert [file["name"] for file in inputs] == ["0.txt", "1.txt", "2.txt"]
    assert "train Word2Vec" in result.err


def test_build_reads_a_config_file(run, news: Path, news_model: Path, tmp_path: Path):
    (tmp_path / "c.toml").write_text(
        f'source = "word2vec"\nname = "from-file"\ntokenizer = "{news_model}"\nstore = "store"\ncache = "cache"\n'
        f'[corpus]\nfiles = ["{news}"]\n[word2vec]\ndim = 8\nepochs = 1\n'
        '[storage]\ndtype = "BF16"\n[neighbors]\nk = 5\n'
    )
    assert run("build", "--config", tmp_path / "c.toml", "--set", "word2vec.dim=6").status == 0
    shown = json.loads(run("show", "--store", tmp_path / "store", "from-file", "--json").out)
    assert shown["vectors"] == {"vocab": 2_000, "dim": 6, "dtype": "BF16"}
    assert shown["neighbors"]["k"] == 5
    assert json.loads(run("verify", "--store", tmp_path / "store", "from-file", "--json").out)["ok"]


@pytest.mark.parametrize("vectors", ["F16", "BF16"])
def test_half_precision_banks_answer_alike(news_config: BuildConfig, news_bank: Bank, tmp_path: Path, vectors: str):
    config = news_config.model_copy(
        update={"store": tmp_path, "storage": news_config.storage.model_copy(update={"dtype": vectors})}
    )
    bank = costbank.build(config)
    the = bank.vocab.find("▁the")
    rows = bank.vectors().astype("f8")
    order = sorted((c, i) for i, c in enumerate((1 - rows @ rows[the]).astype("f4")) if i != the and rows[i].any())
    assert [n.id for n in bank.nearest(the, 20)] == [i for _, i in order[:20]]
    assert abs(bank.nearest(the, 1)[0].cost - news_bank.nearest(the, 1)[0].cost) < 0.02


def test_tokenizer_train_makes_a_tokenizer(run, news: Path, tmp_path: Path):
    result = run("tokenizer", "train", news, "--out", tmp_path / "a.model", "--vocab-size", "900", "--type", "bpe",
                 "--json")  # fmt: skip
    document = json.loads(result.out)
    assert document["vocab"] == 900
    assert (tmp_path / "a.model").stat().st_size > 1_000


def test_the_sources_and_choices_of_the_help_are_those_of_the_library():
    from costbank.config import SOURCE_SECTIONS, settings
    from costbank.config.descriptions import choices

    assert SOURCE_SECTIONS == SOURCES
    assert (choices(settings()["engine.kind"]), choices(settings()["corpus.on_error"])) == (ENGINES, ON_ERROR)
    help_text = next(p.help for p in build_module.command.params if p.name == "source")
    assert all(source in help_text for source in SOURCE_SECTIONS)


def test_a_bank_from_a_tokenizer_from_vectors_and_from_another_bank(run, news_model: Path, tmp_path: Path):
    store = ("--store", tmp_path / "store")
    spelled = run("build", "--source", "spelling", "--tokenizer", news_model, "--set", "spelling.dim=16", *store)
    assert spelled.out.startswith("news-spelling@")
    assert "factorize" in spelled.err
    (tmp_path / "v.txt").write_text("the 1 0 0\nof 0 1 0\nin 0.5 0.5 0\nzebra 1 1 1\n")
    given = run("build", "--source", "vectors", "--vectors", tmp_path / "v.txt", "--tokenizer", news_model, *store)
    assert given.status == 0
    assert "tokens have a vector" in given.err
    moved = run(
        "build", "--source", "transfer", "--donor", "news-spelling", "--tokenizer", news_model, "--json", *store
    )
    facts = json.loads(moved.out)["facts"]
    assert facts["combined"] == 0
    assert facts["held_out"] > 50
    assert "match a token of the donor exactly" in moved.err


def test_a_bank_for_training_has_no_table_and_answers_all_the_same(run, news_model: Path, tmp_path: Path):
    build = ("build", "--source", "spelling", "--tokenizer", news_model, "--set", "spelling.dim=16")
    store = ("--store", tmp_path / "store")
    assert run(*build, "--name", "bare", "--for-training", *store).status == 0
    assert run(*build, "--name", "with-table", "--set", "neighbors.k=7", *store).status == 0
    shown = run("show", "bare", *store).out
    assert "no table; computed on request" in shown
    assert re.search(r"^index +none", shown, re.MULTILINE)
    nearest = [json.loads(run("nearest", name, "▁the", "-k", "5", "--json", *store).out)["neighbors"]
               for name in ("bare", "with-table")]  # fmt: skip
    assert nearest[0] == nearest[1]
    assert run("build", "--source", "spelling", "--tokenizer", news_model, "--for-training", "--set", "neighbors.k=0",
               "--set", "spelling.dim=16", "--name", "bare", *store).status == 0  # fmt: skip


@pytest.mark.parametrize("in_file", [True, False])
def test_a_bank_for_training_cannot_have_a_table(run, news_model: Path, tmp_path: Path, in_file: bool):
    (tmp_path / "c.toml").write_text("[neighbors]\nk = 9\n" if in_file else "")
    settings = ["--config", tmp_path / "c.toml"] if in_file else ["--set", "neighbors.k=9"]
    result = run("build", "--source", "spelling", "--tokenizer", news_model, "--for-training", *settings,
                 "--store", tmp_path / "store")  # fmt: skip
    assert result.status == 2
    assert "--for-training omits the neighbor table, but neighbors.k is 9" in result.err
    assert not (tmp_path / "store").exists()


def test_export_prints_what_it_made(run, news_bank: Bank, news_model: Path, tmp_path: Path):
    result = run("export", "news", "--format", "npy", "--out", tmp_path / "a.npy")
    assert result.out == f"{tmp_path / 'a.npy'}  npy, 2,000 tokens, 0.4 MB\n"
    assert f"note: {tmp_path / 'a.npy.vocab.jsonl'} lists" in result.err
    result = run(
        "export", "news", "--format", "model2vec", "--out", tmp_path / "m", "--tokenizer", news_model, "--json"
    )
    document = json.loads(result.out)
    assert (document["bank"], document["id"], document["format"]) == ("news", news_bank.id, "model2vec")
    assert document["files"] == sorted(str(path) for path in (tmp_path / "m").iterdir())
    assert (document["rows"], document["left_out"]) == (2_000, 0)
    assert document["size"] == sum(path.stat().st_size for path in (tmp_path / "m").iterdir())
    result = run("export", "news", "--format", "tensorboard", "--out", tmp_path / "t", "--json")
    assert json.loads(result.out)["left_out"] == 2_000 - int(news_bank.usable.sum())
    assert "have no vector and are left out" in result.err


def test_the_help_and_the_documentation_name_every_export_format():
    from costbank_cli.commands import export as export_module

    from costbank.export import FORMATS

    page = (Path(__file__).parents[2] / "docs" / "howto" / "export.md").read_text("utf-8")
    help_text = next(p.help for p in export_module.command.params if p.name == "format_name")
    assert help_text.removesuffix(".").split(", ") == list(EXPORT_FORMATS) == list(FORMATS)
    assert all(f"`{name}`" in page for name in FORMATS)
