"""The names that `import costbank` offers, and the libraries that it must not load."""

import pickle
import re
import subprocess
import sys
import traceback
from importlib import import_module
from pathlib import Path

import pytest

import costbank
from costbank import BuildConfig
from costbank.errors import UsageError
from costbank.sources.registry import AllSettings

ROOT = Path(__file__).parents[2]

HEAVY = ("torch", "faiss", "gensim", "fastapi", "scipy", "sentencepiece", "pydantic", "numpy", "ml_dtypes", "rich")

LOADED = "import sys; print(' '.join(name for name in {names!r} if name in sys.modules))"


def _loaded_after(statement: str) -> list[str]:
    code = f"{statement}\n{LOADED.format(names=HEAVY)}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return result.stdout.split()


@pytest.mark.parametrize("statement", ["import costbank", "import costbank.errors, costbank_cli.main"])
def test_importing_loads_nothing_heavy(statement: str):
    loaded = _loaded_after(statement)
    assert set(loaded) <= ({"rich"} if "cli" in statement else set())


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import costbank.bank.store, costbank.tokenizers.kinds", set()),
        (
            "import costbank.bank, costbank.tokenizers, costbank.corpus, costbank.corpus.readers, costbank.sources",
            set(),
        ),
        ("from costbank.config import list_settings; list_settings()", {"pydantic"}),
    ],
)
def test_stores_and_settings_are_listed_without_numpy(statement: str, allowed: set[str]):
    assert set(_loaded_after(statement)) <= allowed


@pytest.mark.slow
@pytest.mark.parametrize("heavy", ["torch", "faiss", "gensim", "fastapi", "ml_dtypes", "numpy", "pydantic"])
def test_the_test_above_would_see_a_heavy_library(heavy: str):
    assert heavy in _loaded_after(f"import costbank, {heavy}")


def test_opening_a_bank_loads_no_heavy_library(news_bank):
    loaded = _loaded_after(f"import costbank; b = costbank.open_bank({str(news_bank.path)!r}); b.nearest(400, 5)")
    assert set(loaded) <= {"numpy", "pydantic"}


def test_the_public_names_are_these():
    assert costbank.__all__ == ["Bank", "BuildConfig", "CostbankError", "build", "build_config", "open_bank"]
    for name in costbank.__all__:
        assert getattr(costbank, name) is not None
        assert name in dir(costbank)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = costbank.nothing


def test_a_config_of_no_source_is_refused():
    for config in (BuildConfig(source="spelling"), AllSettings(source="spelling")):
        with pytest.raises(UsageError, match="it is not the config of a source") as caught:
            costbank.build(config)
        assert "build_config(source=…)" in caught.value.hint


@pytest.mark.slow
def test_a_type_checker_knows_the_names_of_lazy_packages(tmp_path: Path):
    """If the type checker saw `__getattr__`, it would accept every misspelled name."""
    (tmp_path / "names.py").write_text(
        "import costbank\nfrom costbank.config import build_config, build_cfg\n"
        "from costbank.tokenizers import load_tokeniser, load_tokenizer\n"
        "from costbank_service import sarving, serving\n"
        "costbank.open_bnk\ncostbank.build\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, str(tmp_path / "names.py")],
        capture_output=True, text=True, check=False, timeout=120, cwd=ROOT,
    )  # fmt: skip
    wrong = set(re.findall(r'error: .*?"(\w+)" is', done.stdout))
    assert wrong == {"build_cfg", "load_tokeniser", "sarving", "open_bnk"}, done.stdout + done.stderr


@pytest.mark.parametrize(
    "package",
    ["costbank", "costbank.bank", "costbank.config", "costbank.corpus", "costbank.corpus.readers", "costbank.sources",
     "costbank.tokenizers", "costbank_service"],
)  # fmt: skip
def test_every_name_of_a_lazy_package_is_imported_when_used(package: str):
    module = import_module(package)
    for name in module.__all__:
        assert getattr(module, name) is not None
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (
            "costbank.bank",
            ["NAME_PATTERN", "Bank", "BankWriter", "FileCheck", "LoadedBank", "NearestTokens",
             "Neighbor", "RawRows", "Removal", "Store", "StoredBank", "check_digests", "default_store", "open_bank",
             "prune_banks", "remove_banks", "rename_banks", "verify_bank"],
        ),
        (
            "costbank.tokenizers",
            ["BytePieceTokenizer", "GGUFTokenizer", "HuggingFaceTokenizer", "PlainTokenizer", "SamplingTokenizer",
             "SentencePieceTokenizer", "TekkenTokenizer", "TiktokenTokenizer", "Tokenizer", "TokenizerKind",
             "VocabMergesTokenizer", "WordPieceTokenizer",
             "find_tokenizer", "load_tokenizer", "placeholder_counts", "placeholder_pattern"],
        ),
        ("costbank.export", ["FORMATS", "ExportedFiles", "bytes_of_word", "export_bank", "token_words"]),
        ("costbank.sources", ["InputFile", "SourcePlan", "SourceVectors", "plan_source"]),
        (
            "costbank.analysis.health",
            ["Duplicates", "Evidence", "Finding", "FormPairs", "HealthReport", "Hubness", "IdRange", "Isotropy",
             "NamedGroup", "NamedToken", "Norms", "Quality", "Saturation", "Severity", "UnderTraining", "WordForms",
             "health"],
        ),
    ],
)  # fmt: skip
def test_the_names_of_each_room_are_these(module: str, names: list[str]):
    assert import_module(module).__all__ == names


def test_every_error_has_its_code_title_and_place_in_the_tree():
    from costbank import errors

    kinds = [getattr(errors, name) for name in errors.__all__ if name != "require"]
    assert len({kind.code for kind in kinds}) == len(kinds)
    for kind in kinds:
        assert issubclass(kind, errors.CostbankError)
        assert kind.title
        assert kind.__name__ in errors.__doc__
        assert kind.exit_status in (2, 3, 4, 5)


def test_a_missing_library_names_its_extra():
    from costbank.errors import MissingExtraError, require

    with pytest.raises(MissingExtraError, match="'no_such_library'") as caught:
        require("no_such_library", "build")
    assert caught.value.hint == "pip install 'costbank[build]'"


def test_a_traceback_shows_the_hint_also_from_another_process():
    from costbank.errors import UsageError

    error = pickle.loads(pickle.dumps(UsageError("k is 0", "ask for 1 to 9")))
    assert (error.message, error.hint) == ("k is 0", "ask for 1 to 9")
    assert traceback.format_exception_only(error)[-1] == "costbank.errors.UsageError: k is 0\nhint: ask for 1 to 9\n"
    assert str(UsageError("k is 0")) == "k is 0"
