from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from costbank.config import (
    SOURCE_SECTIONS,
    SpellingConfig,
    build_config,
    list_settings,
    load_config,
    semantic_config,
    semantic_settings,
    settings,
    settings_table,
)
from costbank.errors import InputNotFoundError, UsageError

GIVEN = {"source": "word2vec", "tokenizer": "a.model"}

CONFIGS = {source: build_config(source=source) for source in SOURCE_SECTIONS}


def test_later_settings_override_earlier_ones(tmp_path: Path):
    file = tmp_path / "build.toml"
    file.write_text(
        'source = "word2vec"\ntokenizer = "my.model"\n[word2vec]\nepochs = 2\ndim = 32\nwindow = 3\n'
        '[corpus]\nfiles = ["text/a.txt", "/b.txt", "-", "s3://bucket/c.txt"]\n'
    )
    config = load_config({"word2vec.dim": 64, "word2vec.window": 4}, ["word2vec.window=9", "word2vec.sg=false"], file)
    assert (config.word2vec.epochs, config.word2vec.dim, config.word2vec.window) == (2, 64, 9)
    assert config.word2vec.sg is False
    assert config.tokenizer == tmp_path / "my.model"
    assert config.corpus.files == (str(tmp_path / "text/a.txt"), "/b.txt", "-", "s3://bucket/c.txt")


@pytest.mark.parametrize(
    ("assignment", "message", "hint"),
    [
        ("word2vec.epoch=3", "no setting word2vec.epoch", "did you mean word2vec.epochs: passes"),
        ("word2vec.epochs=0", "word2vec.epochs is 0, but must be a whole number from 1 to 10,000", "passes"),
        ("word2vec.epochs=many", "is 'many', but must be a whole number", "word2vec.epochs"),
        ("word2vec.epochs", "sets nothing", "--set word2vec.epochs=10"),
        ("storage.dtype=I64", "must be F32, F16 or BF16", "element type"),
        ("source=magic", "source", "where vectors come from"),
        ("source.x=1", "source is a setting, not a section", "source"),
        ("neighbors.k=-1", "neighbors.k", "neighbors stored for each token"),
        ('transforms=["centre"]', "'centre' is not a transform", "of the raw rows"),
        ('transforms=["pca"]', "'pca' is not a transform", "of the raw rows"),
        ("name=Über/..", "lower-case letters", "bank's name"),
    ],
)
def test_a_wrong_setting_is_named_with_a_hint(assignment: str, message: str, hint: str):
    with pytest.raises(UsageError) as caught:
        load_config(GIVEN, [assignment])
    assert message in str(caught.value)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("source", "given", "message"),
    [
        ("spelling", {"word2vec": {"epochs": 9}}, "word2vec.epochs is a setting of the source word2vec, not of"),
        ("lm-head", {"corpus": {"files": ["a"]}}, "corpus.files is a setting of the sources word2vec and cooccurrence"),
        (
            "word2vec",
            {"transfer": {"donor": "x"}},
            "transfer.donor is a setting of the source transfer, not of word2vec",
        ),
    ],
)
def test_a_setting_of_another_source_is_refused_by_name(source: str, given: dict[str, Any], message: str):
    values = {"source": source, "tokenizer": "a.model"} | given
    with pytest.raises(UsageError, match=message):
        load_config(values)
    with pytest.raises(UsageError, match=message):
        build_config(**values)
    # Settings at their defaults have no effect, so a config file that lists every setting serves any source.
    whole = {
        section: config.model_dump()[section] for own, config in CONFIGS.items() for section in SOURCE_SECTIONS[own]
    }
    assert build_config(source=source, **whole) == CONFIGS[source]


def test_a_config_in_python_has_errors_of_ours():
    with pytest.raises(UsageError, match=r"word2vec\.epochs is 0, but must be a whole number from 1 to 10,000"):
        build_config(source="word2vec", word2vec={"epochs": 0})
    with pytest.raises(UsageError, match="the setting source is needed"):
        build_config(tokenizer="a.model")


def test_vocabulary_is_another_name_of_the_source_spelling(tmp_path: Path):
    (tmp_path / "c.toml").write_text('source = "vocabulary"')
    of_file = load_config({}, ["spelling.dim=16"], tmp_path / "c.toml")
    assert (
        of_file
        == build_config(source="vocabulary", spelling={"dim": 16})
        == build_config(source="spelling", spelling=SpellingConfig(dim=16))
    )
    assert of_file.source == "spelling"
    assert [setting.path for setting in list_settings("vocabulary")] == [s.path for s in list_settings("spelling")]


def test_renamed_settings_are_refused_with_their_new_names():
    for old, new in (("vectors.dtype=F16", "storage.dtype"), ("vocabulary.dim=9", "spelling.dim")):
        with pytest.raises(UsageError, match=f"there is no setting {old.partition('=')[0]}") as caught:
            load_config({"source": "spelling"}, [old])
        assert f"did you mean {new}" in caught.value.hint
    with pytest.raises(UsageError, match=r"there is no setting vector_file\.path") as caught:
        load_config({"source": "vectors"}, ["vector_file.path=a.npy"])
    assert "did you mean vectors.path" in caught.value.hint


def test_one_option_can_set_a_different_setting_for_each_source(tmp_path: Path):
    paths = {("lm_head.tensor", "vectors.tensor"): "x"}
    assert load_config(paths, ["source=lm-head"]).lm_head.tensor == "x"
    assert load_config(paths, ["source=lm-head", "lm_head.tensor=y"]).lm_head.tensor == "y"
    assert load_config({("source",): "vectors"} | paths).vectors.tensor == "x"
    (tmp_path / "c.toml").write_text('source = "vectors"')
    assert load_config(paths, (), tmp_path / "c.toml").vectors.tensor == "x"


@pytest.mark.parametrize("path", ["word2vec.epochs", "word2vec.sample", "corpus.separator", "neighbors.k"])
def test_true_is_no_number(path: str):
    with pytest.raises(UsageError, match=rf"{path} is 'true', but must be a"):
        load_config(GIVEN, [f"{path}=true"])


def test_a_folder_is_no_config(tmp_path: Path):
    with pytest.raises(UsageError, match="is a folder, not a TOML file"):
        load_config(GIVEN, (), tmp_path)


def test_required_settings_are_requested():
    with pytest.raises(UsageError, match="setting source is needed") as caught:
        load_config({"tokenizer": "a.model"})
    assert caught.value.hint == "give source, or --source on the command line"


def test_a_file_that_is_no_config_is_refused(tmp_path: Path):
    with pytest.raises(InputNotFoundError):
        load_config(GIVEN, (), tmp_path / "missing.toml")
    for content in (b"a = ", b"\xff"):
        (tmp_path / "x.toml").write_bytes(content)
        with pytest.raises(UsageError, match="not a TOML file"):
            load_config(GIVEN, (), tmp_path / "x.toml")


def test_paths_and_threads_are_no_part_of_what_is_asked_for():
    config = load_config(GIVEN | {"store": "/x", "word2vec.workers": 7, "name": "n", "corpus.files": ["a"]})
    assert semantic_config(config) == {
        "source": "word2vec",
        "corpus": {"documents": "line"},
        "word2vec": {
            "sg": True, "dim": 128, "window": 5, "negative": 5, "epochs": 5, "sample": 1e-3, "min_count": 5, "seed": 1,
        },
        "vectors": {"dtype": "F32"},
        "neighbors": {"k": None, "method": "auto", "min_recall": 0.99},
        "transforms": (),
    }  # fmt: skip


def test_a_config_cannot_be_changed():
    with pytest.raises(ValidationError):
        load_config(GIVEN).source = "other"


@pytest.mark.parametrize(
    ("tokenizer", "name"),
    [
        ("a/My Model.v2.model", "my-model.v2-word2vec"),
        ("日本.model", "bank-word2vec"),
        ("x" * 99, "x" * 40 + "-word2vec"),
    ],
)
def test_a_bank_without_a_name_gets_a_valid_one(tokenizer: str, name: str):
    config = load_config(GIVEN | {"tokenizer": tokenizer})
    assert config.bank_name == name
    assert load_config(GIVEN | {"name": config.bank_name}).name == name


def test_a_folder_gives_a_bank_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "Qwen2.5-0.5B"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for model in (".", f"{folder}/", "../Qwen2.5-0.5B"):
        assert load_config({"source": "lm-head", "lm_head.model": model}).bank_name == "qwen2.5-0.5b-lm-head"


@pytest.mark.parametrize("text", ["123", "true", "2024-01-01"])
def test_a_name_is_text_whatever_it_looks_like(text: str):
    assert load_config(GIVEN, [f"name={text}"]).name == text


def test_every_setting_is_described_on_a_page_that_is_made_from_the_settings():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "settings.md").read_text("utf-8")
    assert all(field.description for field in settings().values())
    assert settings_table() in page, "run python -m docs.generators"


@pytest.mark.parametrize("source", [None, *SOURCE_SECTIONS])
def test_settings_are_listed_with_what_the_config_has(source: str | None):
    listed = {setting.path: setting for setting in list_settings(source)}
    sections = {section for sections in SOURCE_SECTIONS.values() for section in sections}
    own = sections if source is None else set(SOURCE_SECTIONS[source])
    assert list(listed) == [
        path for path in settings() if path.split(".")[0] in own or path.split(".")[0] not in sections
    ]
    assert listed["source"].default == "needed"
    assert listed["neighbors.min_recall"].default == "0.99"
    assert not listed["store"].in_id
    assert listed["storage.dtype"].in_id
    assert listed["storage.dtype"].takes == "F32, F16 or BF16"
    assert listed["neighbors.k"].takes == "a whole number from 0 to 4,096"


def test_the_settings_of_no_source_are_not_listed():
    with pytest.raises(UsageError, match="no source 'Word-2-Vec'") as caught:
        list_settings("Word-2-Vec")
    assert caught.value.hint == "did you mean word2vec?"


def test_a_donor_by_path_is_beside_the_config_file(tmp_path: Path):
    file = tmp_path / "c.toml"
    for donor, read in {"store/a/0123": str(tmp_path / "store/a/0123"), "name@0123": "name@0123"}.items():
        file.write_text(f'source = "transfer"\n[transfer]\ndonor = "{donor}"\nguide = "{donor}"\n')
        config = load_config({}, (), file)
        assert (config.transfer.donor, config.transfer.guide) == (read, read)


def test_a_leading_tilde_is_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    home, file = tmp_path / "home", tmp_path / "c.toml"
    file.write_text('source = "word2vec"\nstore = "~/banks"\ntokenizer = "a.model"\n[corpus]\nfiles = ["~/a", "b"]\n')
    config = load_config({}, ["cache=~/cache"], file)
    assert (config.store, config.cache, config.tokenizer) == (home / "banks", home / "cache", tmp_path / "a.model")
    assert config.corpus.files == (str(home / "a"), str(tmp_path / "b"))
    in_python = build_config(source="transfer", transfer={"donor": "~/banks/a", "guide": "~b"}, store=Path("~/banks"))
    assert (in_python.transfer.donor, in_python.transfer.guide) == (str(home / "banks/a"), "~b")
    assert in_python.store == home / "banks"


@pytest.mark.parametrize("source", ["spelling", "vectors", "word2vec", "cooccurrence", "lm-head", "transfer"])
def test_the_settings_that_an_id_covers_are_shown_by_names_that_exist(source: str):
    config = build_config(source=source)
    shown = semantic_settings(semantic_config(config))
    assert shown["source"] == source
    assert shown["storage.dtype"] == config.storage.dtype
    assert set(shown) <= set(settings(type(config)))
    assert None not in shown.values()


def test_a_byte_order_mark_before_a_config_is_skipped_and_utf16_is_named(tmp_path: Path):
    file, content = tmp_path / "c.toml", 'source = "word2vec"\ntokenizer = "a.model"\n'
    file.write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert load_config({}, (), file).tokenizer == tmp_path / "a.model"
    for codec in ("utf-16", "utf-16-le"):
        file.write_bytes(content.encode(codec))
        with pytest.raises(UsageError, match=r"c\.toml is UTF-16.* text, but TOML must be UTF-8") as caught:
            load_config({}, (), file)
        assert caught.value.hint.startswith("convert it: iconv -f UTF-16")
