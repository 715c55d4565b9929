"""Processes that share a staging directory and remove leftovers never remove files that are in use."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from costbank.files import locked, no_abandoned, staging_directory


def test_a_lock_on_a_directory_that_is_removed_meanwhile_is_none(tmp_path: Path):
    """A waiter then holds the lock of a removed directory, even if a new directory has the same name."""
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
            # If the waiting thread comes too late to wait, it correctly locks the new directory.
            assert caught.type is FileNotFoundError or again


def _stage(parent: Path, rounds: int) -> None:
    for _ in range(rounds):
        with no_abandoned(parent), staging_directory(parent) as directory:
            (directory / "part").write_bytes(b"x")
            assert (directory / "part").read_bytes() == b"x"


def test_processes_that_stage_in_one_place_leave_each_others_alone(tmp_path: Path):
    """The last process removes the parent directory, so others often see a different one than they opened."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_stage, args=(tmp_path / "staging", 400)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 6
    assert list(tmp_path.iterdir()) == []
