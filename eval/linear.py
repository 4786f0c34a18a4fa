"""Linear probe: how much of the class a linear classifier reads from frozen features (AVID, Table 1; spec, section 3).

A recording's features are means over its evenly spread clips, from networks with running batch-norm statistics.
Classifiers are fitted on the training split, their ridge chosen within it; the test split is only counted. The paper
trains by gradient descent on random clips and averages predictions over 25 clips instead.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..pipelines.batch import Batch
from .blocks import pooled
from .features import Compute, Features
from .probe import fit
from .subject import EvalError, Figure, Subject

SIDES = ("video", "audio")


def evaluate(subject: Subject) -> Iterator[Figure]:
    """`linear.<side>.top1` of the encoders' outputs, side being video, audio or both concatenated.

    `linear.<block>.<side>.top1` where the encoders know blocks, and `linear.best.<side>.top1` of the block that does
    best on the part of the training split that ridges are chosen by; `linear.random.…` of untrained encoders and
    their blocks; `linear.chance.top1`, the share of the training split's most frequent class.

    Raises:
        EvalError: no labels, or no features to probe.
    """
    train, test = (
        labelled(subject.train, subject.train_split, "linear"),
        labelled(subject.test, subject.split, "linear"),
    )
    if not {"video_pool", "audio_pool"} & set(test.values):
        raise EvalError("linear: the method has no features video_pool or audio_pool to probe")
    yield "linear.chance.top1", float((test.label == train.label.mode().values).double().mean())
    for side, *scores in probes(train, test, "pool", subject.seed):
        yield f"linear.{side}.top1", scores[1]
    yield from more(subject)


def labelled(features: Features, split: str | None, evaluator: str) -> Features:
    """The recordings whose class is known. Raises EvalError if there are none."""
    known = features.rows(features.label >= 0)
    if not len(known):
        raise EvalError(
            f"{evaluator}: no recording of split {split!r} has a label; index a folder with one folder a "
            "class, or give labels with --segments (coaug index --help)"
        )
    return known


def probes(train: Features, test: Features, name: str, seed: int) -> Iterator[tuple[str, float, float]]:
    """(side, held-out accuracy, test accuracy) for `video_<name>`, `audio_<name>` and both, where they exist."""
    sides = [side for side in SIDES if f"{side}_{name}" in test]
    for side in [*sides, *(["both"] if len(sides) == 2 else [])]:
        x, y = (_joined(split, sides if side == "both" else [side], name) for split in (train, test))
        probe = fit(x, train.label, seed=seed)
        yield side, probe.held_out, probe.accuracy(y, test.label)


def more(subject: Subject) -> Iterator[Figure]:
    """The figures of blocks and of untrained encoders, from one further pass over the data."""
    found = [subject.more(split, _compute(subject)) for split in (subject.train_split, subject.split)]
    train, test = (features.rows(features.label >= 0) for features in found)
    best: dict[str, tuple[float, float]] = {}
    for name in dict.fromkeys(key.split("_", 1)[1] for key in test.values):
        whose, _, stage = name.rpartition(".")
        for side, *scores in probes(train, test, name, subject.seed):
            yield f"linear.{name}.{side}.top1", scores[1]
            group = f"{whose}.best.{side}".removeprefix(".")
            if stage.startswith("block") and scores[0] > best.get(group, (-1.0, 0.0))[0]:
                best[group] = scores[0], scores[1]
    yield from ((f"linear.{group}.top1", score) for group, (_, score) in best.items())


def _compute(subject: Subject) -> Compute:
    """`video_block1` and so on; of untrained encoders `video_random`, and `video_random.block1` and so on."""
    untrained, encoders = subject.untrained, subject.method.encoders()

    def compute(batch: Batch) -> dict[str, Tensor]:
        found = pooled(encoders, batch)
        if untrained is not None:
            plain = untrained.features(batch)
            found |= {f"{side}_random": plain[f"{side}_pool"] for side in SIDES if f"{side}_pool" in plain}
            blocks = pooled(untrained.encoders(), batch)
            found |= {key.replace("_", "_random.", 1): values for key, values in blocks.items()}
        return found

    return compute


def _joined(features: Features, sides: list[str], name: str) -> Tensor:
    return torch.cat([features[f"{side}_{name}"] for side in sides], 1)
