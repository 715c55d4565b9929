"""The part of a config that a bank's id covers, for each source's defaults: existing banks keep their ids."""

import pytest

from costbank.config import build_config, semantic_config

IDENTITIES = {
    "word2vec": {
        "source": "word2vec",
        "corpus": {"documents": "line"},
        "word2vec": {
            "sg": True,
            "dim": 128,
            "window": 5,
            "negative": 5,
            "epochs": 5,
            "sample": 0.001,
            "min_count": 5,
            "seed": 1,
        },
        "transforms": (),
        "vectors": {"dtype": "F32"},
        "neighbors": {"k": None, "method": "auto", "min_recall": 0.99},
    },
    "cooccurrence": {
        "source": "cooccurrence",
        "corpus": {"documents": "line"},
        "cooccurrence": {
            "dim": 128,
            "window": 2,
            "weighting": "linear",
            "side": "left",
            "min_count": 5,
            "min_pair": 1,
            "contexts": None,
            "smoothing": 0.75,
            "shift": 1.0,
            "cap": None,
            "power": 0.0,
            "seed": 1,
        },
        "transforms": (),
        "vectors": {"dtype": "F32"},
        "neighbors": {"k": None, "method": "auto", "min_recall": 0.99},
    },
    "lm-head": {
        "source": "lm-head",
        "lm_head": {},
        "transforms": (),
        "vectors": {"dtype": "F32"},
        "neighbors": {"k": None, "method": "auto", "min_recall": 0.99},
    },
    "vocabulary": {
        "source": "vocabulary",
        "vocabulary": {"dim": 256, "min_ngram": 2, "max_ngram": 5},
        "transforms": (),
        "vectors": {"dtype": "F32"},
        "neighbors": {"k": None, "method": "auto", "min_recall": 0.99},
    },
    "vectors": {
        "source": "vectors",
        "vector_file": {"match": "folded"},
        "transforms": (),
        "vectors": {"dtype": "F32"},
        "neighbors": {"k": None, "method": "auto", "min_recall": 0.99},
    },
    "transfer": {
        "source": "transfer",
        "transfer": {"method": "segmentation"},
        "transforms": (),
        "vectors": {"dtype": "F32"},
        "neighbors": {"k": None, "method": "auto", "min_recall": 0.99},
    },
}


@pytest.mark.parametrize("source", IDENTITIES)
def test_defaults_of_a_source_keep_the_keys_and_values_that_ids_cover(source):
    assert semantic_config(build_config(source=source)) == IDENTITIES[source]
