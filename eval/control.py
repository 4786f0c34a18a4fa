"""Controls against data that give the answer away: retrieval that needs no course in time, and sound of another.

`control.static`: the best linear probe on the mean picture and the mean spectrum of a recording. If it does as well
as the model, then palette and pitch say which recording it is, and nobody had to look at what happens.

`control.swap`: each recording gets the sound of another one of its class, and is asked for it as if it were its own.
What is left is what the class alone gives, `control.swap.expected`: a partner drawn at random from the class is among
the first k with the probability with which a member of the class is, under the model's own ranking. `control.swap.lift`
says how many times that level the model reaches with the true sounds.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from .cca import fit_best
from .features import Features
from .metrics import Recalls, recall, share_found
from .retrieval import compare, keyed
from .subject import Figure, Subject

FIT_ON = 2000
"""Recordings that the static probe is fitted on, at most."""
FEWEST = 16
ROUNDS = 10
log = logging.getLogger("coaug.eval")


def evaluate(subject: Subject) -> Iterator[Figure]:
    """`control.static.…` and `control.swap.…`."""
    if not {"video_z", "audio_z"} <= set(subject.test.values):
        return
    yield from static(subject)
    yield from swap(subject.test, subject.seed)


def static(subject: Subject) -> Iterator[Figure]:
    """`control.static.{class,instance}.…` as the model's own figures, and their `ratio` to them.

    The probe is a regularised CCA fitted on the training split, its ridges and width chosen within it.
    `control.static.ratio` is R@1 of the same recording over the model's, in the worse direction.
    """
    if subject.size(subject.train_split) < FEWEST:
        log.warning("control.static left out: fewer than %d recordings to fit the probe on", FEWEST)
        return
    known, test = subject.stills(FIT_ON), subject.test
    probe, width = fit_best(known["video_still"], known["audio_still"], seed=subject.seed)
    video, audio = probe(test["video_still"], test["audio_still"], width)
    shown = Features(test.sample_id, test.label, {"video": video, "audio": audio})
    figures = dict(compare("control.static", shown, "video", "audio"))
    yield from figures.items()
    model = dict(compare("model", test, "video_z", "audio_z"))
    ways = [f"instance.{way}.r1" for way in ("a2v", "v2a")]
    yield (
        "control.static.ratio",
        max(_ratio(figures[f"control.static.{w}"], model[f"model.{w}"], len(test)) for w in ways),
    )


def swap(features: Features, seed: int = 0, rounds: int = ROUNDS) -> Iterator[Figure]:
    """`control.swap.instance.…` (mean over `rounds` swaps), `control.swap.expected.…`, `ratio` and `lift`.

    `ratio` is swapped over expected R@1 in the worse direction (about 1 or less); `lift` is the model's own R@1 over
    the expected one in the weaker direction. Only recordings that share their class with another one are asked for.
    """
    ids, labels = features.sample_id, features.label
    shared = (labels >= 0) & (derange(labels, seed) != torch.arange(len(labels)))
    if not shared.any():
        return
    swapped, ratios, lifts = [derange(labels, seed, i) for i in range(rounds)], [], []
    for way, queries, gallery in (
        ("a2v", features["audio_z"], features["video_z"]),
        ("v2a", features["video_z"], features["audio_z"]),
    ):
        asked = queries[shared]
        trials = [recall(asked, gallery, ids[order][shared], ids) for order in swapped]
        level = share_found(asked, gallery, labels[shared], labels)
        found, own = _average(trials), recall(asked, gallery, ids[shared], ids)
        yield from keyed(f"control.swap.instance.{way}", found)
        yield from keyed(f"control.swap.expected.{way}", level)
        ratios.append(_ratio(found[1], level[1], len(asked)))
        lifts.append(_ratio(own[1], level[1], len(asked)))
    yield "control.swap.ratio", max(ratios)
    yield "control.swap.lift", min(lifts)


def derange(labels: Tensor, seed: int = 0, turn: int = 0) -> Tensor:
    """(N,) int64: for each row another one of its label, all permutations without a fixed row equally likely.

    Rows whose label is alone, or negative (unknown), keep their place.
    """
    rng, order = np.random.default_rng([seed, turn]), np.arange(len(labels))
    for label in np.unique(labels.numpy()):
        rows = np.flatnonzero(labels.numpy() == label)
        if label < 0 or len(rows) < 2:
            continue
        drawn = rng.permutation(rows)
        while (drawn == rows).any():  # one in e is accepted, whatever the size
            drawn = rng.permutation(rows)
        order[rows] = drawn
    return torch.from_numpy(order)


def _average(trials: list[Recalls]) -> Recalls:
    return {k: sum(trial[k] for trial in trials) / len(trials) for k in trials[0]}


def _ratio(value: float, base: float, count: int) -> float:
    """Quotient that stays finite: a base of nothing counts as one hit."""
    return value / max(base, 1 / count)
