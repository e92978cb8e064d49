"""The fixed groups of samples by which sums over a batch are formed, the same for any number of threads."""

from __future__ import annotations

from fastbp.runtime.jit import entry_kernel

# Groups at most, and what their size is a multiple of: vectors of samples are then whole, and begin where a line of the
# cache does.
GROUPS, GROUP = 16, 16


@entry_kernel
def groups_of(samples):
    """Into how many groups samples are divided: all of one size but the last, which may be smaller."""
    size = group_size(samples)
    return max(1, (samples + size - 1) // size)


def most_groups(samples: int) -> int:
    """The most groups of any batch of up to so many samples: 200 samples have 13 groups, 300 have 10."""
    return min(GROUPS, max(1, -(-samples // GROUP)))


@entry_kernel
def group_of(samples, number):
    """The first sample of a group, and the one behind its last."""
    first = number * group_size(samples)
    return first, min(samples, first + group_size(samples))


@entry_kernel
def group_size(samples):
    """How many samples a group has, but the last one, which may have fewer."""
    smallest = GROUPS * GROUP
    return max(GROUP, (samples + smallest - 1) // smallest * GROUP)
