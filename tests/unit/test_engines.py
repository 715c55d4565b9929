import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from costbank.engines import open_engine
from costbank.errors import CorpusError, EngineError


def _square(number, report):
    report(number)
    return number * number, os.getpid()


def _die_once(mark, _report):
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return mark


def _die(_number, _report):
    os._exit(1)


def _refuse(_number, _report):
    raise CorpusError("line 3 is bad", "mend it")


def _local(processes: int, tmp_path: Path):
    return open_engine("local", processes, None, None, tmp_path)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_shard_is_worked_on_once_and_all_that_is_done_is_reported(processes: int, tmp_path: Path):
    reported = []
    with _local(processes, tmp_path) as engine:
        for _ in range(2):
            results = dict(engine.run(_square, list(range(20)), reported.append))
            assert {number: square for number, (square, _) in results.items()} == {i: i * i for i in range(20)}
    assert sum(reported) == 2 * sum(range(20))
    processes_used = {process for _, process in results.values()}
    assert (processes_used == {os.getpid()}) == (processes == 1)


def test_memory_is_shared_among_the_workers(tmp_path: Path):
    with open_engine("local", 4, 1 << 30, None, tmp_path) as engine:
        assert engine.memory == 1 << 28


def test_one_shard_needs_no_other_process(tmp_path: Path):
    with _local(2, tmp_path) as engine:
        assert dict(engine.run(_square, [3], lambda _: None)) == {0: (9, os.getpid())}


@pytest.mark.slow
def test_shards_whose_worker_was_killed_are_worked_on_again(tmp_path: Path):
    marks = [str(tmp_path / str(number)) for number in range(50)]
    for number in set(range(50)) - {0, 7, 20, 21, 49}:
        Path(marks[number]).touch()
    with _local(2, tmp_path) as engine:
        assert dict(engine.run(_die_once, marks, lambda _: None)) == dict(enumerate(marks))


@pytest.mark.slow
def test_workers_that_always_die_end_it_with_an_error(tmp_path: Path):
    with _local(2, tmp_path) as engine, pytest.raises(EngineError, match="killed 4 times in a row") as caught:
        list(engine.run(_die, [1, 2, 3], lambda _: None))
    assert "--memory" in caught.value.hint


def test_an_error_in_a_worker_is_raised_as_it_is(tmp_path: Path):
    with _local(2, tmp_path) as engine, pytest.raises(CorpusError, match="line 3 is bad") as caught:
        list(engine.run(_refuse, [1, 2, 3], lambda _: None))
    assert caught.value.hint == "mend it"


_SLEEPERS = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, {folder!r})
from costbank.engines import open_engine
import sleeping
with open_engine("local", 2, None, None, Path({folder!r})) as engine:
    list(engine.run(sleeping.sleep, [1, 2], lambda _: None))
"""


@pytest.mark.parametrize("started", [True, False])
def test_an_interrupt_while_the_reporting_thread_starts_leaves_no_thread(
    started: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    start, threads, failures = threading.Thread.start, [], []

    def interrupted(thread: threading.Thread) -> None:
        reporting = thread.name == "costbank-reports"
        if started or not reporting:
            start(thread)
        if reporting:
            threads.append(thread)
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    monkeypatch.setattr(threading, "excepthook", failures.append)
    with _local(2, tmp_path) as engine, pytest.raises(KeyboardInterrupt):
        list(engine.run(_square, [1, 2], lambda _: None))
    assert len(threads) == 1
    if started:
        threads[0].join(10)
    assert not threads[0].is_alive()
    assert failures == []


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_the_process_that_started_it(how: signal.Signals, tmp_path: Path):
    (tmp_path / "sleeping.py").write_text(
        "import os, time\nfrom pathlib import Path\n"
        "def sleep(number, report):\n"
        f"    (Path({str(tmp_path)!r}) / f'{{os.getpid()}}.pid').touch()\n"
        "    time.sleep(600)\n"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", _SLEEPERS.format(folder=str(tmp_path))], stderr=subprocess.DEVNULL
    )
    workers = _wait_for(lambda: started if len(started := list(tmp_path.glob("*.pid"))) == 2 else None)
    starter.send_signal(how)
    starter.wait(20)
    _wait_for(lambda: not any(Path(f"/proc/{worker.stem}").exists() for worker in workers))


def _wait_for(condition):
    for _ in range(400):
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError("the condition did not hold within 20 seconds")
