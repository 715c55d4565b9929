"""What happens to raw vectors before they become a bank's rows.

Today that is one step, which every bank ends with: rows of unit length. A row without length stays zero.
"""

import numpy as np
from jaxtyping import Float, Float32

__all__ = ["normalize"]


def normalize(rows: Float[np.ndarray, "rows dim"]) -> Float32[np.ndarray, "rows dim"]:
    """Rows divided by their Euclidean norm, which is taken in float64; zero rows stay zero."""
    norms = np.sqrt(np.einsum("rd,rd->r", rows, rows, dtype=np.float64, casting="safe"))[:, None]
    return np.divide(rows, norms, out=np.zeros(rows.shape, np.float64), where=norms > 0).astype(np.float32)
