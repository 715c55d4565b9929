import numpy as np

from costbank.splitmix import splitmix64


def test_the_numbers_are_those_that_are_published_for_this_seed():
    """https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64"""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert splitmix64(np.uint64(1234567), np.arange(1, 5)).tolist() == published


def test_a_number_depends_on_its_seed_and_count_alone():
    seeds = np.array([0, 1234567, (1 << 64) - 1], np.uint64)
    table = splitmix64(seeds[:, None], np.arange(1, 100)[None, :])
    assert table.shape == (3, 99)
    assert len(np.unique(table)) == table.size
    assert splitmix64(seeds[1], np.array([7])) == table[1, 6]
