"""Example answers for the OpenAPI document. A test checks each against its schema."""

from typing import Any

__all__ = [
    "BATCH_EXAMPLE",
    "COMPARE_EXAMPLE",
    "COSTS_EXAMPLE",
    "EXAMPLES_EXAMPLE",
    "MAP_EXAMPLE",
    "NEAREST_EXAMPLE",
    "TARGETS_EXAMPLE",
    "TOKENS_EXAMPLE",
    "TOKEN_EXAMPLE",
    "VECTORS_EXAMPLE",
]


def _answer(example: Any) -> dict[str, Any]:
    return {"content": {"application/json": {"example": example}}}


_ROW = {"id": 877, "text": "▁row", "status": "ok", "count": 615}
_NEIGHBORS = [{"id": 1129, "text": "▁column", "cost": 0.23230048}, {"id": 2580, "text": "▁observation", "cost": 0.4216}]
_BANK = {"bank": "demo", "id": "00d1cfdac0c85487"}

_NEAREST = {**_BANK, "token": {**_ROW, "other": None}, "exact": True, "neighbors": _NEIGHBORS}
_BYTES = {**_ROW, "bytes": "20726f77"}

NEAREST_EXAMPLE = _answer(_NEAREST)
BATCH_EXAMPLE = _answer({**_BANK, "results": [{"token": _ROW, "exact": True, "neighbors": _NEIGHBORS}]})
TOKENS_EXAMPLE = _answer({**_BANK, "total": 12, "tokens": [_BYTES], "next": "AAAAAAAAA217uoy1rKVTM3qyjRU="})
TOKEN_EXAMPLE = _answer({**_BANK, "token": {**_BYTES, "has_vector": True}})
EXAMPLES_EXAMPLE = _answer({**_BANK, "examples": [{"token": _ROW, "neighbors": _NEIGHBORS}]})
COSTS_EXAMPLE = _answer({**_BANK, "rows": [877], "cols": [877, 1129], "costs": [[0.0, 0.23230048]]})
VECTORS_EXAMPLE = _answer({**_BANK, "ids": [877], "vectors": [[0.5, -0.5, 0.5, 0.5]]})
MAP_EXAMPLE = _answer({**_BANK, "xy": [[0.25, -1.5], None]})
TARGETS_EXAMPLE = _answer(
    {
        **_BANK, "split": "given", "unmatched": "", "loss": "neighbor_smoothing", "weight": 0.1, "temperature": 0.0722,
        "targets": [
            {
                "token": _ROW, "softened": True, "label_share": 0.9, "rest": 0.0875, "perplexity": 312.5,
                "others": [{**_NEIGHBORS[0], "share": 0.0125}],
            }
        ],
    }
)  # fmt: skip
COMPARE_EXAMPLE = _answer(
    {
        "a": _NEAREST, "b": {**_NEAREST, "bank": "other", "id": "3c484facda184846"}, "same_tokenizer": True,
        "overlap": 1.0, "rank_biased_overlap": 1.0,
    }
)  # fmt: skip
