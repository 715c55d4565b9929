"""The time of whole `costbank` processes, compared with an empty Python process."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from costbank_cli.demo.docstrings import gather_docstrings

from benchmarks.record import record
from costbank.progress import QuietProgress
from costbank.tokenizers.train import train_sentencepiece

__all__ = ["run"]

_RUNS = 11


def run() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gather_docstrings(folder / "text", ("numpy",), QuietProgress())
        model = train_sentencepiece([folder / "text"], folder / "text.model", 8_000)
        costbank = str(Path(sys.executable).with_name("costbank"))
        environment = {**os.environ, "COSTBANK_STORE": str(folder / "store"), "COSTBANK_CACHE": str(folder / "cache")}
        build = [costbank, "build", "--source", "word2vec", "--corpus", str(folder / "text"), "--tokenizer", str(model)]
        subprocess.run([*build, "--name", "numpy", "--set", "word2vec.epochs=1"], check=True, env=environment)
        commands = {
            "python -c pass": ([sys.executable, "-c", "pass"], ""),
            "costbank --help": ([costbank, "--help"], "< 0.3"),
            "costbank nearest": ([costbank, "nearest", "numpy", "▁array"], "< 0.6"),
        }
        seconds: dict[str, list[float]] = {measure: [] for measure in commands}
        for _ in range(_RUNS):
            for measure, (command, _) in commands.items():
                began = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
                seconds[measure].append(time.perf_counter() - began)
        for measure, (_, target) in commands.items():
            record("startup", measure, "s", seconds[measure], target, ("click", "rich", "pydantic", "numpy"))


if __name__ == "__main__":
    run()
