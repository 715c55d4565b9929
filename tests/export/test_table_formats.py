"""Every format of rows and costs, opened by the library it is meant for."""

import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from gensim.models import KeyedVectors

from costbank.bank import Bank
from costbank.export import export_bank, token_words
from costbank.export.arrays import write_costs
from costbank.export.base import BlockSizes, CellType, ExportJob
from costbank.export.parquet import write_parquet
from costbank.export.tokenizer_json import TokenizerJson
from costbank.progress import QuietProgress


def _listing(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(params=["odd_bank", "news_bank"])
def bank(request: pytest.FixtureRequest) -> Bank:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("kind", ["word2vec-text", "word2vec-binary"])
def test_gensim_reads_every_token_and_value(bank: Bank, tmp_path: Path, kind: str):
    exported = export_bank(bank, kind, tmp_path / "out.vec")
    vectors = KeyedVectors.load_word2vec_format(tmp_path / "out.vec", binary=kind == "word2vec-binary")
    ids, words = np.flatnonzero(bank.usable), token_words(bank.vocab)
    assert vectors.index_to_key == [words[i] for i in ids]
    assert np.array_equal(vectors.vectors, bank.vectors(ids))
    assert (exported.rows, exported.left_out) == (len(ids), bank.size - len(ids))
    listing = _listing(tmp_path / "out.vec.vocab.jsonl")
    assert [line["word"] for line in listing] == vectors.index_to_key
    assert [bytes.fromhex(line["hex"]) for line in listing] == [bank.vocab.token(i) for i in ids]
    assert exported.files == (tmp_path / "out.vec", tmp_path / "out.vec.vocab.jsonl")
    assert exported.size == sum(path.stat().st_size for path in exported.files)


def test_gensims_most_similar_are_the_banks_nearest(news_bank: Bank, tmp_path: Path):
    export_bank(news_bank, "word2vec-binary", tmp_path / "out.bin")
    vectors = KeyedVectors.load_word2vec_format(tmp_path / "out.bin", binary=True)
    words = token_words(news_bank.vocab)
    similar = vectors.most_similar("▁the", topn=10)
    nearest = news_bank.nearest(news_bank.vocab.find("▁the"), 10)
    assert [word for word, _ in similar] == [words[n.id] for n in nearest]
    assert all(math.isclose(1 - s, n.cost, abs_tol=1e-5) for (_, s), n in zip(similar, nearest, strict=True))


def test_npy_has_every_row_and_a_line_for_each(bank: Bank, tmp_path: Path):
    exported = export_bank(bank, "npy", tmp_path / "rows.npy")
    rows = np.load(tmp_path / "rows.npy")
    assert rows.dtype == np.float32
    assert np.array_equal(rows, bank.vectors())
    listing = _listing(tmp_path / "rows.npy.vocab.jsonl")
    assert [line["id"] for line in listing] == list(range(bank.size))
    for line in listing:
        token_id = line["id"]
        count = bank.vocab.counts[token_id]
        assert line["text"] == bank.vocab.display(token_id)
        assert bytes.fromhex(line["hex"]) == bank.vocab.token(token_id)
        assert line["status"] == bank.vocab.status_of(token_id).name.lower()
        assert line["count"] == (None if count < 0 else count)
    assert exported.left_out == 0


def test_parquet_has_the_columns_of_embedding_atlas(bank: Bank, tmp_path: Path):
    export_bank(bank, "parquet", tmp_path / "bank.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "bank.parquet")
    assert [f"{field.name} {field.type}" for field in table.schema] == [
        "id int32",
        "text string",
        "bytes binary",
        "status string",
        "count int64",
        f"vector fixed_size_list<element: float>[{bank.dim}]",
        "neighbors struct<ids: list<element: int32>, distances: list<element: float>>",
    ]
    rows = np.stack(table["vector"].combine_chunks().flatten().to_numpy().reshape(bank.size, bank.dim))
    assert np.array_equal(rows, bank.vectors())
    for token_id, line in enumerate(table.drop_columns(["vector"]).to_pylist()):
        count = bank.vocab.counts[token_id]
        valid = bank.neighbors.ids[token_id] >= 0
        assert line["id"] == token_id
        assert (line["text"], line["bytes"]) == (bank.vocab.display(token_id), bank.vocab.token(token_id))
        assert line["status"] == bank.vocab.status_of(token_id).name.lower()
        assert line["count"] == (None if count < 0 else count)
        assert line["neighbors"]["ids"] == bank.neighbors.ids[token_id][valid].tolist()
        assert line["neighbors"]["distances"] == bank.neighbors.costs[token_id][valid].tolist()


def _job(bank: Bank, target: Path, sizes: BlockSizes, dtype: CellType = "F32") -> ExportJob:
    return ExportJob(bank, target, target, TokenizerJson(), dtype, QuietProgress(), sizes)


def test_parquet_is_written_in_row_groups(news_bank: Bank, tmp_path: Path):
    write_parquet(_job(news_bank, tmp_path / "bank.parquet", BlockSizes(row_elements=300 * news_bank.dim)))
    file = pyarrow.parquet.ParquetFile(tmp_path / "bank.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [300] * 6 + [200]
    assert file.read(["id"])["id"].to_pylist() == list(range(2_000))


@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_costs_are_those_of_the_bank(bank: Bank, tmp_path: Path, dtype: CellType):
    exported = export_bank(bank, "costs-npy", tmp_path / "costs.npy", dtype=dtype)
    costs = np.load(tmp_path / "costs.npy", mmap_mode="r")
    every = np.arange(bank.size)
    wanted = bank.cost_matrix(every, every)
    assert costs.dtype == (np.float32 if dtype == "F32" else np.float16)
    assert (np.diagonal(costs) == 0).all()
    np.testing.assert_allclose(costs, wanted, rtol=0, atol=2e-7 if dtype == "F32" else 1e-3)
    none = np.flatnonzero(~bank.usable)
    assert (costs[none][:, np.flatnonzero(bank.usable)] == 1).all()
    assert costs[none[0], none[1]] == 1
    assert exported.files == (tmp_path / "costs.npy",)
    write_costs(_job(bank, tmp_path / "tiles.npy", BlockSizes(cost_elements=100 * bank.size, cost_columns=37), dtype))
    tiles = np.load(tmp_path / "tiles.npy")
    assert tiles.dtype == costs.dtype
    np.testing.assert_allclose(tiles, wanted, rtol=0, atol=2e-7 if dtype == "F32" else 1e-3)
    assert (np.diagonal(tiles) == 0).all()


def test_tensorboards_projector_serves_the_bank(bank: Bank, tmp_path: Path):
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
    from werkzeug.test import Client

    exported = export_bank(bank, "tensorboard", tmp_path / "logs")
    assert [path.name for path in exported.files] == ["metadata.tsv", "projector_config.pbtxt", "vectors.tsv"]

    class NoRuns:
        def list_runs(self, *_: object, **__: object) -> list:
            return []

    plugin = ProjectorPlugin(TBContext(logdir=str(tmp_path / "logs"), data_provider=NoRuns()))
    routes = plugin.get_plugin_apps()
    assert Client(routes["/runs"]).get("/").json == ["."]
    embedding = Client(routes["/info"]).get("/?run=.").json["embeddings"][0]
    ids = np.flatnonzero(bank.usable)
    assert embedding["tensorShape"] == [len(ids), bank.dim]
    name = embedding["tensorName"]
    tensor = Client(routes["/tensor"]).get("/", query_string={"run": ".", "name": name}).data
    assert np.array_equal(np.frombuffer(tensor, "<f4").reshape(len(ids), bank.dim), bank.vectors(ids))
    metadata = Client(routes["/metadata"]).get("/", query_string={"run": ".", "name": name}).data.decode()
    header, *lines = metadata.removesuffix("\n").split("\n")
    assert header.split("\t") == ["token", "id", "status", "count", "hex"]
    cells = [line.split("\t") for line in lines]
    assert [int(cell[1]) for cell in cells] == ids.tolist()
    assert [cell[0] for cell in cells] == [bank.vocab.display(i) for i in ids]
    assert [bytes.fromhex(cell[4]) for cell in cells] == [bank.vocab.token(i) for i in ids]
