"""A service under mixed load for a long time, while banks are added, moved and deleted: `python -m benchmarks.soak`.

Clients ask for everything that the service answers. Meanwhile another thread writes new banks of the names that they
ask for, removes the old ones, and renames and deletes a bank. The service's memory, threads and descriptors are read
from /proc every half second. `--seconds 1800` is the whole run; a minute of it is among the tests.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median

from benchmarks.deep_search import write_bank
from benchmarks.record import record
from costbank.bank import Store, remove_banks, rename_banks
from costbank.errors import CostbankError

__all__ = ["Soak", "soak"]

_NAMES = ("red", "blue", "green")
_COMES_AND_GOES = ("here", "there")
_VOCAB, _DIM, _TABLE_K = 3_000, 64, 16
_SAMPLE_S = 0.5
_MEMORY_MB = 16


@dataclass
class Soak:
    """What happened.

    Attributes:
        answers: how often each status came.
        failures: requests that got what they should not, in words.
        changes: how often banks were written, removed or renamed.
        samples: seconds since the start, resident megabytes, threads and descriptors of the service.
    """

    answers: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    changes: int = 0
    samples: list[tuple[float, float, int, int]] = field(default_factory=list)

    def growth(self) -> tuple[float, float, float]:
        """The medians of megabytes, threads and descriptors in the last third, minus those in the second third."""
        third = len(self.samples) // 3
        second, last = self.samples[third : 2 * third], self.samples[2 * third :]
        megabytes, threads, files = (
            median(sample[i] for sample in last) - median(sample[i] for sample in second) for i in (1, 2, 3)
        )
        return megabytes, threads, files


def soak(seconds: float, clients: int, pause: float = 0.0, every: float = 1.0) -> Soak:
    """Run the service for so many seconds, with so many clients, each of which waits `pause` seconds after an answer.

    The store changes twice in `every` seconds.

    Raises:
        RuntimeError: the service ended by itself.
    """
    result, stop = Soak(), threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        for seed, name in enumerate((*_NAMES, _COMES_AND_GOES[0])):
            write_bank(store, _VOCAB, _DIM, _TABLE_K, name, seed)
        with _service(store) as (port, pid):
            threads = [threading.Thread(target=_ask, args=(port, seed, pause, stop, result)) for seed in range(clients)]
            threads.append(threading.Thread(target=_keep_changing, args=(store, every, stop, result)))
            for thread in threads:
                thread.start()
            try:
                _watch(pid, seconds, result)
            finally:
                stop.set()
                for thread in threads:
                    thread.join(60)
    return result


@contextmanager
def _service(store: Path) -> Iterator[tuple[int, int]]:
    variables = {**os.environ, "COSTBANK_MAX_MEMORY_MB": str(_MEMORY_MB), "COSTBANK_REFRESH_MS": "100"}
    command = [sys.executable, "-u", "-m", "costbank_cli", "serve", "--store", str(store), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=variables) as process:
        assert process.stdout is not None
        try:
            yield int(re.findall(r"127\.0\.0\.1:(\d+)", process.stdout.readline())[0]), process.pid
        finally:
            process.terminate()
            process.wait(60)


def _watch(pid: int, seconds: float, result: Soak) -> None:
    began = time.monotonic()
    while (elapsed := time.monotonic() - began) < seconds:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        except FileNotFoundError:
            raise RuntimeError("the service ended by itself") from None
        values = dict(line.split(":", 1) for line in status.splitlines())
        if "VmRSS" not in values:
            raise RuntimeError("the service ended by itself")
        result.samples.append((elapsed, int(values["VmRSS"].split()[0]) / 1_024, int(values["Threads"]), files))
        time.sleep(_SAMPLE_S)


def _requests(choose: random.Random) -> Iterator[tuple[str, str, str | None, bool]]:
    """Method, target, body, and whether the bank may be gone."""
    while True:
        gone = choose.random() < 0.1
        bank = f"/v1/banks/{choose.choice(_COMES_AND_GOES if gone else _NAMES)}"
        token, k = choose.randrange(_VOCAB), choose.choice((5, 10, 10, 10, 100))
        ids = [choose.randrange(_VOCAB) for _ in range(20)]
        listed = ",".join(map(str, ids))
        method, target, body = choose.choice((
            ("GET", f"{bank}/nearest?token_id={token}&k={k}", None),
            ("GET", f"{bank}/nearest?token=+token{token}&k={k}", None),
            ("POST", f"{bank}/nearest", json.dumps({"token_ids": ids, "k": k})),
            ("POST", f"{bank}/costs", json.dumps({"rows": ids, "cols": ids})),
            ("GET", f"{bank}/vectors?ids={listed}", None),
            ("GET", f"{bank}/tokens?q=token{token % 300}&match=contains", None),
            ("GET", f"{bank}/tokens/{token}", None),
            ("GET", f"{bank}/files/vectors.safetensors", None),
            ("HEAD", f"{bank}/files/manifest.json", None),
            ("GET", bank, None),
        ))  # fmt: skip
        yield method, target, body, gone
        if choose.random() < 0.1:
            yield "GET", choose.choice(("/v1/banks", "/readyz", "/metrics", "/openapi.json")), None, False
            yield "GET", f"/v1/compare?a=red&b=blue&token_id={token}", None, False


def _ask(port: int, seed: int, pause: float, stop: threading.Event, result: Soak) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Content-Type": "application/json"}
    for method, target, body, gone in _requests(random.Random(seed)):
        if stop.wait(pause):
            break
        try:
            connection.request(method, target, body, headers if body else {})
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, HTTPException) as error:
            result.failures.append(f"{method} {target}: {error!r}")
            connection.close()
            continue
        result.answers[answer.status] += 1
        busy = answer.status == 503 and answer.headers["Retry-After"]
        if not (answer.status == 200 or busy or (gone and answer.status == 404)):
            result.failures.append(f"{method} {target}: {answer.status} {content[:200]!r}")
    connection.close()


def _keep_changing(store: Path, every: float, stop: threading.Event, result: Soak) -> None:
    try:
        _change(store, every, stop, result)
    except Exception as error:
        result.failures.append(f"the store could not be changed: {error!r}")


def _change(store: Path, every: float, stop: threading.Event, result: Soak) -> None:
    """Write a newer bank of a name and then remove the older one; let another bank come, be renamed, and go."""
    here, there = _COMES_AND_GOES
    for seed in range(100, 1_000_000):
        name = _NAMES[seed % len(_NAMES)]
        older = [stored.id for stored in Store(store).banks_of(name)]
        write_bank(store, _VOCAB, _DIM, _TABLE_K, name, seed)
        remove_banks([f"{name}@{bank_id}" for bank_id in older], store)
        with suppress(CostbankError):
            rename_banks(here, there, store)
        if stop.wait(every / 2):
            return
        remove_banks([there], store)
        write_bank(store, _VOCAB, _DIM, _TABLE_K, here, 0)
        result.changes += 5
        if stop.wait(every / 2):
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1_800)
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args()
    result = soak(arguments.seconds, arguments.clients)
    for seconds, megabytes, threads, files in result.samples[:: max(1, len(result.samples) // 20)]:
        print(f"{seconds:7.0f} s  {megabytes:6.1f} MB  {threads:3d} threads  {files:3d} descriptors")
    print(f"answers by status: {dict(result.answers)}; {result.changes} changes of the store")
    for failure in result.failures[:20]:
        print(failure)
    note = f"{arguments.seconds:g} s, {arguments.clients} clients, {sum(result.answers.values())} answers"
    record("soak", "failed requests", "", [len(result.failures)], "0", note=note)
    for name, grown in zip(("memory", "threads", "descriptors"), result.growth(), strict=True):
        unit = "MB" if name == "memory" else ""
        record("soak", f"{name}: last third minus second third", unit, [grown], "", note=note)


if __name__ == "__main__":
    main()
