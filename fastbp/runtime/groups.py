"""The fixed groups of samples by which sums over a batch are formed, the same for any number of threads."""

from __future__ import annotations

from fastbp.runtime.jit import kernel

# Groups at most, and samples of a group at least.
GROUPS, GROUP = 16, 12


@kernel
def groups_of(samples):
    """Into how many groups samples are divided: 1, 2, 4, 8 or 16. Group g begins at sample samples·g//groups."""
    groups = 1
    while 2 * groups <= min(GROUPS, samples // GROUP):
        groups *= 2
    return groups
