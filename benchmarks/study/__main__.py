"""Run the arms of a setting over seeds, several at a time, and append a row for each to a file.

    python -m benchmarks.study small --text english.txt --seeds 3 --processes 2
    python -m benchmarks.study small --text english.txt --arms ce recommended --split test
    python -m benchmarks.study --report data/study/rows.jsonl

Runs whose rows are in the file are not run again, so an interrupted study goes on where it was.
"""

import argparse
import json
import multiprocessing
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from benchmarks.study.design import ARMS, SETTINGS, Setting
from benchmarks.study.losses import build_bank
from benchmarks.study.report import report
from benchmarks.study.text import open_text
from benchmarks.study.training import train_in_process

ROWS = Path(__file__).parents[2] / "data" / "study" / "rows.jsonl"
HEADLINE = ["ce", "recommended", "label-smoothing", "unigram-smoothing", "shuffled"]


def main() -> None:
    options = _options()
    if options.report:
        print(report(_rows(options.rows)))
        return
    setting = replace(SETTINGS[options.setting], **_changes(options.set))
    folder = options.work / f"{options.text.stem}-{setting.vocab}-{setting.train_tokens}"
    text = open_text(options.text, setting, folder)
    digest = sha256(options.text.read_bytes()).hexdigest()[:16]
    fixed = {"setting": options.setting, "sizes": asdict(setting), "text": digest, "split": options.split}
    # Seeds first, so that arms can be compared early.
    wanted = [fixed | {"arm": arm, "design": asdict(ARMS[arm]), "seed": seed}
              for seed in range(options.seeds) for arm in options.arms]  # fmt: skip
    done = {_key(row) for row in _rows(options.rows)}
    todo = [run for run in wanted if _key(run) not in done]
    print(
        f"{len(wanted)} runs, of which {len(wanted) - len(todo)} are done; {setting.epochs:.1f} epochs", file=sys.stderr
    )
    for run in todo:
        build_bank(ARMS[run["arm"]], text, folder)  # before the processes, so that each is built once
    _run_all(todo, setting, options, folder)
    print(report([row for row in _rows(options.rows) if all(row[name] == fixed[name] for name in fixed)]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("setting", nargs="?", choices=SETTINGS, default="small", help="the model and the training")
    parser.add_argument("--text", type=Path, help="text with a document per line")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=HEADLINE, metavar="ARM", help=", ".join(ARMS))
    parser.add_argument("--seeds", type=int, default=3, help="the number of seeds")
    parser.add_argument("--split", choices=("valid", "test"), default="valid", help="the text of the measures")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="another size, such as dropout=0.1")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, each with one thread")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--work", type=Path, default=Path(".study"), help="folder for the split text and the banks")
    parser.add_argument("--rows", type=Path, default=ROWS, help="the file of rows")
    parser.add_argument("--report", action="store_true", help="print the comparison of all rows, and run nothing")
    options = parser.parse_args()
    if not options.report and options.text is None:
        parser.error("give --text FILE, a text with a document per line")
    return options


def _changes(pairs: list[str]) -> dict[str, Any]:
    changes = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if not hasattr(Setting(), name) or not value:
            raise SystemExit(f"--set {pair}: give NAME=VALUE with one of {', '.join(asdict(Setting()))}")
        changes[name] = type(getattr(Setting(), name))(value)
    return changes


def _run_all(todo: list[dict[str, Any]], setting: Setting, options: argparse.Namespace, folder: Path) -> None:
    began = time.monotonic()
    context = multiprocessing.get_context("spawn")
    arguments = (setting, options.text, folder, options.split, options.device)
    with ProcessPoolExecutor(options.processes, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = {pool.submit(train_in_process, ARMS[run["arm"]], run["seed"], *arguments): run for run in todo}
        try:
            for number, future in enumerate(as_completed(futures), 1):
                run = futures[future]
                row = run | future.result() | {"revision": _revision(), "date": datetime.now(UTC).date().isoformat()}
                options.rows.parent.mkdir(parents=True, exist_ok=True)
                with options.rows.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                rest = (time.monotonic() - began) / number * (len(todo) - number)
                outcome = (
                    f"perplexity {row['perplexity']:.2f}" if "perplexity" in row else f"diverged at {row['diverged']}"
                )
                print(f"{number} of {len(todo)}: {run['arm']}, seed {run['seed']}: {outcome}; {rest / 60:.0f} min left",
                      file=sys.stderr, flush=True)  # fmt: skip
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _key(row: dict[str, Any]) -> str:
    return json.dumps([row[name] for name in ("sizes", "text", "split", "design", "seed")], sort_keys=True)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _revision() -> str:
    found = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
