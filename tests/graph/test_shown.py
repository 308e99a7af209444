"""What a plan remembers of its runs."""

from __future__ import annotations

from itertools import pairwise

from dataflow.graph.shown import LONGEST_GAP, Shown


def test_one_worker_is_tried_less_and_less_often() -> None:
    shown = Shown(1)
    tried = [number for number in range(1, 1000) if shown.tries()]
    gaps = [later - earlier for earlier, later in pairwise(tried)]
    assert tried[0] == 1
    assert gaps[:6] == [2, 4, 8, 16, 32, 64]
    assert set(gaps[6:]) == {LONGEST_GAP}
