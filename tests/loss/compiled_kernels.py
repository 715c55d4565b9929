"""Compile the kernels for sm_90 as a large vocabulary launches them, and print their registers and spills as JSON."""

import itertools
import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from costbank.loss.engine.kernels import rounding, rows

POINTERS = {
    "logits": "*bf16", "out": "*bf16", "labels": "*i64", "costs": "*bf16", "targets": "*fp32", "factors": "*fp32",
    "row_of": "*i64", "kept": "*i8", "near": "*i64", "near_values": "*fp32", "vectors": "*fp32",
}  # fmt: skip
NUMBERS = {"cap": "fp32", "inverse": "fp32", "power": "fp32", "rate": "fp32", "rows": "i32"}
WARPS = 16


def compiled(function: Any, types: dict[str, str], constants: dict[str, Any]) -> dict[str, Any]:
    signature = {name: "constexpr" if name in constants else types.get(name, "i64") for name in function.arg_names}
    source = ASTSource(fn=function, signature=signature, constexprs=constants)
    kernel = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": WARPS})
    assembler = Path(nvidia.__file__).parent / "bin" / "ptxas"
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(kernel.asm["ptx"])
        file.flush()
        told = subprocess.run(
            [assembler, "-v", "--gpu-name=sm_90a", file.name, "-o", "/dev/null"],
            capture_output=True, text=True, check=True,
        ).stderr  # fmt: skip
    spilled, registers = re.search(r"(\d+) bytes spill stores", told), re.search(r"Used (\d+) registers", told)
    assert spilled is not None
    assert registers is not None
    return {"kernel": function.__name__, **constants, "spilled bytes": int(spilled[1]), "registers": int(registers[1])}


def main() -> None:
    results = []
    for cap, (costs, log, targets) in itertools.product(
        (False, True), ((False, False, 0), (True, False, 0), (False, True, 0), (False, False, 2), (True, False, 1))
    ):
        common = {"WIDTH": 128_256, "CAP": cap, "COSTS": costs, "LOG": log, "TARGETS": targets, "BLOCK": 8_192}
        sums = {**common, "TOTAL": True, "SPREAD": True, "BEST": True}
        results.append(compiled(rows.row_sums, {**POINTERS, **NUMBERS, "out": "*fp32"}, sums))
        # Columns apart: of neighbors, and of soft targets, whose costs are a tile.
        for near in (0, 64) if not log and not targets else (0,):
            gradients = {**common, "SLOPE": cap, "NEAR": near, "NEAR_BLOCK": max(1, near)}
            results.append(compiled(rows.row_gradients, {**POINTERS, **NUMBERS}, gradients))
    for dtype in ("*fp16", "*fp32"):
        types = {**POINTERS, **NUMBERS, "logits": dtype, "out": dtype, "costs": dtype}
        results.append(compiled(rows.row_gradients, types, gradients))
    added = {"total": "*bf16", "terms": "*fp32", "count": "i32", "number": "i32"}
    results += [
        compiled(rounding.add_rounded, {**added, "first": first}, rounding.CONSTANTS) for first in ("i32", "i64")
    ]
    print(json.dumps(results))


if __name__ == "__main__":
    main()
