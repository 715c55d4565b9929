"""A minute of mixed load on a service while its banks are written, renamed and removed."""

import sys

import pytest

from benchmarks.soak import Soak, soak


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_service_answers_everything_and_does_not_grow_while_its_banks_change():
    result = soak(60, clients=2, pause=0.1, every=4.0)
    assert result.failures == []
    assert result.answers[200] > 500
    assert not result.answers[503]
    assert result.changes >= 20
    megabytes, threads, files = result.growth()
    # In the first minute, caches still fill.
    assert megabytes < 20
    assert threads <= 1
    assert files <= 5


def test_growth_is_that_of_the_last_third():
    steady = [(float(i), 50.0, 4, 9) for i in range(30)]
    assert Soak(samples=steady).growth() == (0, 0, 0)
    leaking = [(float(i), 50.0 + i, 4 + i, 9 + 2 * i) for i in range(30)]
    assert Soak(samples=leaking).growth() == (10, 10, 20)
