"""The settings of the source `word2vec`."""

from typing import Annotated, Literal

from pydantic import Field

from costbank.machine import usable_cores
from costbank.settings import Execution, SettingsModel, SpokenDefault
from costbank.sources.corpus_settings import CorpusBuild

__all__ = ["Word2VecBuild", "Word2VecConfig"]


class Word2VecConfig(SettingsModel):
    """Word2Vec (Mikolov et al. 2013) on token ids, trained by gensim."""

    sg: bool = Field(default=True, description="skip-gram; false trains CBOW")
    dim: int = Field(default=128, ge=1, le=65_536, description="vector size")
    window: int = Field(default=5, ge=1, le=1_000, description="tokens of context on each side")
    negative: int = Field(default=5, ge=0, le=100, description="noise tokens per positive pair")
    hs: bool = Field(
        default=False,
        description="hierarchical softmax, in addition to noise tokens, or instead of them with `negative=0`",
    )
    epochs: int = Field(default=5, ge=1, le=10_000, description="passes over the corpus")
    sample: float = Field(default=1e-3, ge=0, le=1, description="subsampling threshold of frequent tokens; 0 keeps all")
    min_count: int = Field(default=5, ge=1, description="ids that occur less often get no vector and are `unseen`")
    seed: int = Field(default=1, ge=0, lt=1 << 32, description="seed of the initial vectors and the noise")
    workers: Annotated[int, Execution, SpokenDefault("number of cores")] = Field(
        default_factory=usable_cores,
        ge=1,
        le=256,
        description="training threads; the result is reproducible bit for bit only with one",
    )


class Word2VecBuild(CorpusBuild):
    """The config of a bank of Word2Vec vectors."""

    source: Literal["word2vec"] = "word2vec"  # pyright: ignore[reportIncompatibleVariableOverride] -- frozen
    word2vec: Word2VecConfig = Field(default_factory=Word2VecConfig)

    def without_effect(self) -> set[str]:
        return super().without_effect() | (set() if self.word2vec.hs else {"word2vec.hs"})
