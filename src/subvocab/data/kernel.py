"""The loop over token ids, compiled. Import it late: numba takes half a second to load."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from numba import njit


@no_type_check
def _count_ids(ids, counts, skipped):  # noqa: ANN001, ANN202
    """Count ids; return the position of the first that is outside, or -1.

    A negative id becomes huge as an unsigned number, so one comparison checks both
    ends. ``skipped`` is an id outside the vocabulary to pass over; 0 is never outside.
    """
    size = np.uint64(counts.size)
    for position in range(ids.size):
        token_id = np.uint64(np.int64(ids[position]))
        if token_id >= size:
            if ids[position] == skipped:
                continue
            return position
        counts[token_id] += 1
    return -1


@no_type_check
def _count_new_ids(ids, counts, skipped, first, read):  # noqa: ANN001, ANN202
    """Count ids as above, and note how many were read before the first of each.

    ``first`` says of each id where it was seen first so far, a huge number if never; what
    has a count need not be looked up in it. ``read`` is how many came before these ids.
    """
    size = np.uint64(counts.size)
    for position in range(ids.size):
        token_id = np.uint64(np.int64(ids[position]))
        if token_id >= size:
            if ids[position] == skipped:
                read -= 1
                continue
            return position
        before = counts[token_id]
        counts[token_id] = before + np.uint32(1)
        if before == 0:
            first[token_id] = min(first[token_id], read + position)
    return -1


try:
    count_ids = njit(nogil=True, cache=True)(_count_ids)
    count_new_ids = njit(nogil=True, cache=True)(_count_new_ids)
except RuntimeError:  # there is no folder to keep compiled code in: compile once a process
    count_ids = njit(nogil=True)(_count_ids)
    count_new_ids = njit(nogil=True)(_count_new_ids)
