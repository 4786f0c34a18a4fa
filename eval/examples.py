"""Whom cross-modal agreement takes for a recording's positives, and whom it turns down (AVID, Fig. 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..kernels.agreement_topk import Mode, agreement_topk
from .bank import Bank


@dataclass(frozen=True)
class Neighbour:
    """Another recording: its row of the bank, and how similar its picture and its sound are (cosines)."""

    row: int
    video: float
    audio: float


@dataclass(frozen=True)
class Example:
    """A recording and `each` of three kinds of neighbours, the nearest first.

    Attributes:
        taken: those that agree most in both.
        sight: the nearest in picture that are not among the positives, for want of agreement in sound.
        sound: the nearest in sound that are not among the positives.
    """

    row: int
    taken: list[Neighbour]
    sight: list[Neighbour]
    sound: list[Neighbour]

    @property
    def groups(self) -> dict[str, list[Neighbour]]:
        """Title of a kind -> its neighbours."""
        return {"taken": self.taken, "alike in sight only": self.sight, "alike in sound only": self.sound}


def examples(bank: Bank, rows: Sequence[int], positives: int, each: int = 4) -> list[Example]:
    """An example for each of `rows`, whose positives are the `positives` that agree most."""
    asked = torch.tensor(rows)

    def nearest(mode: Mode, k: int) -> Tensor:
        return agreement_topk(bank.video, bank.audio, min(k, len(bank) - 1), mode, queries=asked)[1]

    taken, deep = nearest("min", positives), positives + each  # so many hold `each` that are not taken
    lists = [taken, nearest("video", deep), nearest("audio", deep)]
    return [
        _example(bank, *(part[i].tolist() for part in lists), row=row, each=each)
        for i, row in enumerate(rows)
    ]


def _example(
    bank: Bank, taken: list[int], sight: list[int], sound: list[int], *, row: int, each: int
) -> Example:
    def told(found: list[int]) -> list[Neighbour]:
        return [
            Neighbour(j, float(bank.video[row] @ bank.video[j]), float(bank.audio[row] @ bank.audio[j]))
            for j in found[:each]
        ]

    rejected = ([j for j in found if j not in taken] for found in (sight, sound))
    return Example(row, told(taken), *(told(found) for found in rejected))


def references(bank: Bank, count: int, *, seed: int = 0) -> list[int]:
    """Rows of `count` recordings drawn at random, of different classes while there are any."""
    order = torch.randperm(len(bank), generator=torch.Generator().manual_seed(seed)).tolist()
    labels = bank.label.tolist()
    first = list({labels[row]: row for row in reversed(order) if labels[row] >= 0}.values())[::-1]
    rest = [row for row in order if row not in first]
    return [*first, *rest][:count]
