"""The groups of samples by which sums over a batch are formed."""

import pytest

from fastbp.runtime.groups import GROUP, GROUPS, group_of, groups_of, most_groups


@pytest.mark.parametrize("samples", [0, 1, 15, 16, 17, 100, 255, 256, 257, 1000, 4096, 60_000])
def test_groups_hold_each_sample_once_in_their_order(samples):
    groups = [group_of(samples, number) for number in range(groups_of(samples))]

    assert [n for first, stop in groups for n in range(first, stop)] == list(range(samples))


@pytest.mark.parametrize("samples", [1, 16, 17, 100, 256, 257, 1000, 60_000])
def test_groups_are_few_and_begin_at_whole_vectors(samples):
    firsts = [group_of(samples, number)[0] for number in range(groups_of(samples))]

    assert len(firsts) <= GROUPS
    assert all(first % GROUP == 0 for first in firsts)


def test_no_shorter_batch_has_more_groups_than_there_is_memory_for():
    most = 1
    for samples in range(2000):
        most = max(most, groups_of(samples))
        assert most_groups(samples) == most
