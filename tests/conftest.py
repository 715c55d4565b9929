"""Every test runs with checks of shapes and types: each call of a function is checked against its annotations."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores. BLAS and torch read this when they load; with more threads than cores, threads spin.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

if not Path("/dev/nvidiactl").exists():
    # Without a GPU, Triton interprets its kernels. It reads this when it is imported.
    os.environ.setdefault("TRITON_INTERPRET", "1")

from jaxtyping import install_import_hook

with install_import_hook(["costbank", "costbank_service"], "beartype.beartype"):
    import costbank

import gc
import logging
import signal
from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np
import pytest

from costbank.bank import Bank
from costbank.config import BuildConfig, CorpusConfig, Word2VecConfig, build_config
from costbank.tokenizers.train import train_sentencepiece

ROOT = Path(__file__).parents[1]

# A shell that runs the tests in the background makes them ignore Ctrl-C, and their child processes would inherit this.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a test by its argument if that is binary: an archive contains the time, and all workers need equal names."""
    return argname if isinstance(val, bytes) and not val.isascii() else None


def pytest_collection_finish() -> None:
    """The Trainer collects garbage at each start and end; freezing keeps it from scanning all imported modules."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Commands that run in the tests' process log to the stderr of their test, which is closed later."""
    logger = logging.getLogger("costbank")
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    yield
    logger.handlers, logger.propagate = handlers, propagate
    logger.setLevel(level)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder next to the checkout with real corpora and tokenizers; without it, the test is skipped."""
    path = Path(os.environ.get("COSTBANK_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"the shared test data is not in {path}; set $COSTBANK_TEST_DATA to its folder")
    return path


@pytest.fixture(scope="session")
def news() -> Path:
    """60,000 words of real news, a file in gensim's package."""
    spec = find_spec("gensim")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "test" / "test_data" / "lee_background.cor"


@pytest.fixture(scope="session")
def news_model(news: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentencePiece model of 2,000 pieces, trained on the news."""
    return train_sentencepiece([news], tmp_path_factory.mktemp("tokenizer") / "news.model", 2_000)


@pytest.fixture(scope="session")
def news_config(news: Path, news_model: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildConfig:
    """A small and reproducible Word2Vec build on the news."""
    place = tmp_path_factory.mktemp("news")
    return build_config(
        source="word2vec",
        tokenizer=news_model,
        name="news",
        store=place / "store",
        cache=place / "cache",
        corpus=CorpusConfig(files=(str(news),)),
        word2vec=Word2VecConfig(dim=24, epochs=2, min_count=2, workers=1),
    )


@pytest.fixture(scope="session")
def news_bank(news_config: BuildConfig) -> Bank:
    """The bank of that build. Tests that damage a bank copy it first."""
    return costbank.build(news_config)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(20)
