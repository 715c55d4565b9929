"""Cores and memory that a process may use, on the machine and in containers."""

import os
from pathlib import Path

import pytest

from costbank import machine


@pytest.fixture
def limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the kernel's control groups; the CPU set has 8 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    return tmp_path


@pytest.mark.parametrize(
    ("limit", "cores"),
    [
        ("max 100000", 8),
        ("400000 100000", 4),
        ("150000 100000", 1),
        ("50000 100000", 1),
        ("1600000 100000", 8),
        ("", 8),
    ],
)
def test_a_quota_of_cpu_time_limits_the_cores(limits: Path, limit: str, cores: int):
    (limits / "cpu.max").write_text(limit)
    assert machine.usable_cores(limits) == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1", 8), ("300000", 3)])
def test_a_quota_of_older_kernels_limits_the_cores(limits: Path, quota: str, cores: int):
    (limits / "cpu").mkdir()
    (limits / "cpu/cpu.cfs_quota_us").write_text(quota)
    (limits / "cpu/cpu.cfs_period_us").write_text("100000")
    assert machine.usable_cores(limits) == cores


def test_without_limits_all_cores_of_the_cpu_set_count(limits: Path):
    assert machine.usable_cores(limits) == 8


@pytest.mark.parametrize("file", ["memory.max", "memory/memory.limit_in_bytes"])
def test_memory_is_that_of_the_container(limits: Path, file: str):
    whole = machine.usable_memory(limits)
    (limits / file).parent.mkdir(exist_ok=True)
    (limits / file).write_text("max\n" if file == "memory.max" else str(1 << 62))
    assert machine.usable_memory(limits) == whole
    (limits / file).write_text("1048576\n")
    assert machine.usable_memory(limits) == 1 << 20
