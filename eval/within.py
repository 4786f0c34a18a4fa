"""Within-modal retrieval: does a picture find pictures, a sound sounds, of its own class (spec, section 3)?

What CMA is to calibrate (AVID, section 5.4), asked of recordings that no training saw. Cosine, on projector outputs z
and on encoders' outputs; one entry a recording.
"""

from __future__ import annotations

from collections.abc import Iterator

from .features import Features
from .linear import labelled
from .metrics import chance, recall
from .retrieval import keyed
from .subject import EvalError, Figure, Subject

WAYS = {"v2v": "video", "a2a": "audio"}


def evaluate(subject: Subject) -> Iterator[Figure]:
    """`within.{z,pool}.{v2v,a2a,chance}.r<k>`, test recordings asked for training ones of their class, and
    `within_test.…` among the test recordings themselves, each left out of its own ranking.

    Raises:
        EvalError: no labels, or features of neither modality.
    """
    test, train = (
        labelled(subject.test, subject.split, "within"),
        labelled(subject.train, subject.train_split, "within"),
    )
    names = [name for name in ("z", "pool") if any(f"{side}_{name}" in test for side in WAYS.values())]
    if not names:
        raise EvalError("within: the method has no features such as video_z or audio_pool to compare")
    for name in names:
        yield from across(f"within.{name}", name, test, train)
    for name in names:
        yield from among(f"within_test.{name}", name, test)


def across(prefix: str, name: str, queries: Features, gallery: Features) -> Iterator[Figure]:
    """`<prefix>.{v2v,a2a,chance}.r<k>` of queries among the recordings of another set."""
    for way, side in WAYS.items():
        if (key := f"{side}_{name}") in queries:
            found = recall(queries[key], gallery[key], queries.label, gallery.label)
            yield from keyed(f"{prefix}.{way}", found)
    yield from keyed(f"{prefix}.chance", chance(queries.label, gallery.label))


def among(prefix: str, name: str, features: Features) -> Iterator[Figure]:
    """The same within one set, a recording never being its own neighbour."""
    for way, side in WAYS.items():
        if (key := f"{side}_{name}") in features:
            x, label = features[key], features.label
            yield from keyed(f"{prefix}.{way}", recall(x, x, label, label, leave_out=True))
    yield from keyed(f"{prefix}.chance", chance(features.label, features.label, leave_out=True))
