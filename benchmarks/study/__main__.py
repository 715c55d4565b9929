"""Run the arms of a setting over seeds, several at a time, and append a row for each to a file.

    python -m benchmarks.study small --text english.txt --seeds 3 --processes 2
    python -m benchmarks.study small --text english.txt --arms ce recommended --split test
    python -m benchmarks.study --report --rows data/study/rows.jsonl

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
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.study.design import ARMS, SETTINGS, Setting
from benchmarks.study.losses import build_bank
from benchmarks.study.report import ROWS, read_rows, report
from benchmarks.study.text import Files, open_text
from benchmarks.study.training import is_base_trained, start_worker, train_base, train_in_process
from costbank.errors import UsageError

HEADLINE = ["ce", "recommended", "start-from-bank-recommended", "label-smoothing", "unigram-smoothing", "shuffled"]
"""The arms that are run by default; without those that start from a bank, if the model was trained before."""


def main() -> None:
    options = _options()
    if options.report:
        print(report(read_rows(options.rows)))
        return
    setting = replace(SETTINGS[options.setting], **changed_sizes(options.set))
    files = Files(options.text, options.other, options.model, options.encoder)
    vocab = options.model.stem if setting.pretrained else setting.vocab
    fixed: dict[str, Any] = {"setting": options.setting, "sizes": asdict(setting), "text": _digest(options.text)}
    if files.other:
        fixed["other text"] = _digest(files.other)
    if files.model:
        fixed["model"] = files.model.name
    if files.encoder:
        fixed["encoder"] = files.encoder.resolve().name
    # All that the tokenizer, the base model and the banks depend on.
    origin = [fixed["text"], fixed.get("other text"), str(files.model), asdict(replace(setting, lr=0.0, steps=0))]
    digest = sha256(json.dumps(origin).encode()).hexdigest()[:8]
    folder = options.work / f"{options.text.stem}-{vocab}-{setting.train_tokens}-{digest}"
    try:
        text = open_text(files, setting, folder)
    except UsageError as error:
        raise SystemExit(f"error: {error}") from error
    fixed["split"] = options.split
    # Seeds first, so that arms can be compared early.
    wanted = [fixed | {"arm": arm, "design": asdict(ARMS[arm]), "seed": seed}
              for seed in range(options.seeds) for arm in options.arms]  # fmt: skip
    done = {_key(row) for row in read_rows(options.rows)}
    todo = [run for run in wanted if _key(run) not in done]
    print(
        f"{len(wanted)} runs, of which {len(wanted) - len(todo)} are done; {setting.epochs:.1f} epochs", file=sys.stderr
    )
    if todo:
        if setting.base_steps and not is_base_trained(folder):
            print(f"training the base model on {files.other}, once: {setting.base_steps} steps", file=sys.stderr)
        train_base(setting, text, folder, options.device)
    for run in todo:
        build_bank(ARMS[run["arm"]], text, folder)  # before the processes, so that each is built once
    _run_all(todo, setting, files, options, folder)
    print(report([row for row in read_rows(options.rows) if all(row.get(name) == fixed[name] for name in fixed)]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("setting", nargs="?", choices=SETTINGS, default="small", help="the model and the training")
    parser.add_argument("--text", type=Path, help="text with a document per line, or pairs for fine-tuning")
    parser.add_argument("--model", type=Path, help="a pretrained model, as a Hugging Face folder")
    parser.add_argument("--other", type=Path, help="another text, on which the model was trained before")
    parser.add_argument("--encoder", type=Path, help="a sentence encoder, as a folder: measures samples too (MAUVE)")
    parser.add_argument("--arms", nargs="+", choices=ARMS, metavar="ARM", help=", ".join(ARMS))
    parser.add_argument("--seeds", type=int, default=3, help="the number of seeds")
    parser.add_argument("--split", choices=("valid", "test"), default="valid", help="the text of the measures")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="another size, such as dropout=0.1")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, each with one thread")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--work", type=Path, default=Path(".study"), help="folder for the split text and the banks")
    parser.add_argument("--rows", type=Path, default=ROWS, help="the file of rows")
    parser.add_argument("--report", action="store_true", help="print the comparison of all rows, and run nothing")
    options = parser.parse_args()
    if options.report:
        return options
    if options.text is None:
        parser.error("give --text FILE, a text with a document per line")
    if (options.model is not None) != SETTINGS[options.setting].pretrained:
        pretrained = ", ".join(name for name, setting in SETTINGS.items() if setting.pretrained)
        parser.error(f"--model belongs to the settings that continue the training of a pretrained model: {pretrained}")
    if options.encoder is not None:
        _check_encoder(parser, options)
    _check_continued(parser, options)
    return options


def _check_encoder(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if missing := [name for name in ("mauve", "sentence_transformers") if find_spec(name) is None]:
        parser.error(f"--encoder needs {', '.join(missing)}: pip install mauve-text sentence-transformers")
    if not any((options.encoder / name).is_file() for name in ("modules.json", "config.json")):
        parser.error(
            f"{options.encoder} has no modules.json or config.json: give --encoder the folder of a sentence encoder"
        )
    if SETTINGS[options.setting].prompts:
        parser.error(f"--encoder does not go with {options.setting}: samples are compared with running text")


def _check_continued(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Check that the files and arms fit the setting: models that are trained further need more than others."""
    setting = SETTINGS[options.setting]
    is_continued = setting.pretrained or setting.base_steps > 0
    if is_continued and options.other is None:
        parser.error("give --other FILE, the text that the model knows before, to see what it forgets")
    options.arms = options.arms or [name for name in HEADLINE if not (is_continued and ARMS[name].starts_from_bank)]
    for name in options.arms:
        if ARMS[name].starts_from_bank and is_continued:
            parser.error(
                f"{name} would overwrite the embedding of a model that was trained before; use another setting"
            )
        if ARMS[name].head is not None and not is_continued:
            parser.error(f"{name} uses the head of a model that was trained before; use another setting")
        if ARMS[name].bank_text == "base" and not setting.base_steps:
            parser.error(f"{name} uses the text of the base model; use a setting that has one, such as continued-small")


def changed_sizes(pairs: list[str]) -> dict[str, Any]:
    """The sizes that `--set` gives, with their types."""
    changes = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if not hasattr(Setting(), name) or not value or name in ("pretrained", "prompts"):
            raise SystemExit(f"--set {pair}: give NAME=VALUE with one of {', '.join(asdict(Setting()))}")
        changes[name] = type(getattr(Setting(), name))(value)
    return changes


def _run_all(
    todo: list[dict[str, Any]], setting: Setting, files: Files,
    options: argparse.Namespace, folder: Path,
) -> None:  # fmt: skip
    began = time.monotonic()
    context = multiprocessing.get_context("spawn")
    arguments = (setting, files, folder, options.split, options.device)
    with ProcessPoolExecutor(options.processes, context, initializer=start_worker) as pool:
        futures = {pool.submit(train_in_process, ARMS[run["arm"]], run["seed"], *arguments): run for run in todo}
        try:
            for number, future in enumerate(as_completed(futures), 1):
                run = futures[future]
                origin = {"text name": files.text.stem, "revision": _revision()}
                row = run | future.result() | origin | {"date": datetime.now(UTC).date().isoformat()}
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


def _digest(file: Path) -> str:
    return sha256(file.read_bytes()).hexdigest()[:16]


def _key(row: dict[str, Any]) -> str:
    names = ("sizes", "text", "model", "other text", "encoder", "split", "design", "seed")
    return json.dumps([row.get(name) for name in names], sort_keys=True)


def _revision() -> str:
    found = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
