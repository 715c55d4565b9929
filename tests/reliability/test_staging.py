"""Processes that stage in one place, and remove what others leave, never remove what is in use."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from costbank.files import locked, no_abandoned, staging_directory


def test_a_lock_on_a_directory_that_is_removed_meanwhile_is_none(tmp_path: Path):
    """Whoever waited has the lock of something that nobody finds any more, though there be another by its name."""
    for again in (False, True):
        directory = tmp_path / f"staged-{again}"
        directory.mkdir()
        held, waiting = Event(), Event()

        def wait(directory: Path = directory, held: Event = held, waiting: Event = waiting) -> None:
            held.wait()
            waiting.set()
            with locked(directory):
                raise AssertionError("it was locked")

        with ThreadPoolExecutor(1) as pool:
            waited = pool.submit(wait)
            with locked(directory):
                held.set()
                waiting.wait()
                directory.rename(tmp_path / f"gone-{again}")
                if again:
                    directory.mkdir()
            with pytest.raises((FileNotFoundError, AssertionError)) as caught:
                waited.result(timeout=10)
            # The waiting thread may come too late to wait, and then locks what is there now, as it should.
            assert caught.type is FileNotFoundError or again


def _stage(parent: Path, rounds: int) -> None:
    for _ in range(rounds):
        with no_abandoned(parent), staging_directory(parent) as directory:
            (directory / "part").write_bytes(b"x")
            assert (directory / "part").read_bytes() == b"x"


def test_processes_that_stage_in_one_place_leave_each_others_alone(tmp_path: Path):
    """Each removes the place itself when it is the last, and so others often find another than they have opened."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_stage, args=(tmp_path / "staging", 400)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 6
    assert list(tmp_path.iterdir()) == []
