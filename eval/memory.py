"""What the memory of a method knows (AVID, Table 2, Fig. 6b and Table 6); nothing of a method that has none."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import torch
from torch import Tensor

from .bank import Bank, bank_of
from .calibration import calibration, partners
from .precision import EXPANSIONS, by_chance, precision_at
from .probe import fit
from .subject import EvalError, Figure, Subject

ROUNDS = 5
FITTED_ON = 0.7


def evaluate(subject: Subject) -> Iterator[Figure]:
    """`memory.calibration.…`, `memory.precision.…`, `memory.linear.…`: see the functions below.

    Raises:
        EvalError: no remembered recording has a label.
    """
    bank = bank_of(subject.method, subject.catalog)
    if bank is None:
        return
    yield from calibrated(bank)
    known = bank.rows(bank.label >= 0)
    if not len(known):
        raise EvalError(f"memory: none of the {len(bank)} remembered recordings has a label in the catalog")
    yield from precise(known, subject.seed)
    yield from classified(known, subject.seed)


def calibrated(bank: Bank) -> Iterator[Figure]:
    """`memory.calibration.{video,audio,cross}.{mean,std}` of random pairs, `.own.mean` of a recording's two rows."""
    for name, spread in calibration(bank).items():
        yield f"memory.calibration.{name}.mean", spread.mean
        yield f"memory.calibration.{name}.std", spread.std
    yield "memory.calibration.own.mean", partners(bank)


def precise(bank: Bank, seed: int) -> Iterator[Figure]:
    """`memory.precision.{agreement,video,audio,either}.p<K>` and `memory.precision.chance`."""
    for expansion in EXPANSIONS:
        found = precision_at(bank, expansion, seed=seed)
        yield from ((f"memory.precision.{expansion}.p{k}", value) for k, value in found.items())
    yield "memory.precision.chance", by_chance(bank.label)


def classified(bank: Bank, seed: int) -> Iterator[Figure]:
    """`memory.linear.{video,audio,both}.{top1,std}`: of classifiers of rows, mean and sample deviation over divisions.

    Five times fitted on 70 % of the recordings and counted on the others, drawn at random (AVID, appendix C).
    """
    sides = {"video": bank.video, "audio": bank.audio, "both": torch.cat([bank.video, bank.audio], 1)}
    for side, rows in sides.items():
        scores = [_score(rows, bank.label, seed, turn) for turn in range(ROUNDS)]
        yield f"memory.linear.{side}.top1", statistics.fmean(scores)
        yield f"memory.linear.{side}.std", statistics.stdev(scores)


def _score(rows: Tensor, label: Tensor, seed: int, turn: int) -> float:
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(ROUNDS * seed + turn))
    fitted, counted = order.tensor_split([round(FITTED_ON * len(rows))])
    return fit(rows[fitted], label[fitted], seed=seed).accuracy(rows[counted], label[counted])
