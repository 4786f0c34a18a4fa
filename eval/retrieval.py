"""Audio-visual retrieval, one entry a recording: SpeedAug / SvaCLR, section 4 and table 6.

Ten uniform clips a recording, cosine similarity, R@1/5/10/20 both ways. A hit by class is a neighbour of the query's
class (as in the paper), by instance the other half of the very recording. The headline compares projector outputs z,
which the loss aligns; the paper's own form compares pool5 features, which no loss ever aligned across modalities, and
is reported beside it without a target.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from .features import Features
from .metrics import Recalls, chance, recall
from .subject import Figure, Subject


def evaluate(subject: Subject) -> Iterator[Figure]:
    """`retrieval.…` from `video_z`, `audio_z`; `retrieval_pool5.…` where the encoders' outputs agree in width."""
    features = subject.test
    if "video_z" not in features or "audio_z" not in features:
        return
    yield from compare("retrieval", features, "video_z", "audio_z")
    pools = [features[name] for name in ("video_pool", "audio_pool") if name in features]
    if len(pools) == 2 and pools[0].shape[1] == pools[1].shape[1]:
        yield from compare("retrieval_pool5", features, "video_pool", "audio_pool")


def compare(prefix: str, features: Features, video: str, audio: str) -> Iterator[Figure]:
    """`<prefix>.{class,instance}.{a2v,v2a,chance}.r<k>`, fractions in 0..1.

    Recordings without a label take no part by class; without any labels there are no figures by class.
    """
    labelled = features.rows(features.label >= 0)
    if len(labelled):
        yield from _figures(f"{prefix}.class", labelled[video], labelled[audio], labelled.label)
    if len(features):
        yield from _figures(f"{prefix}.instance", features[video], features[audio], features.sample_id)


def _figures(prefix: str, video: Tensor, audio: Tensor, keys: Tensor) -> Iterator[Figure]:
    yield from keyed(f"{prefix}.a2v", recall(audio, video, keys, keys))
    yield from keyed(f"{prefix}.v2a", recall(video, audio, keys, keys))
    yield from keyed(f"{prefix}.chance", chance(keys, keys))


def keyed(prefix: str, recalls: Recalls) -> Iterator[Figure]:
    """(`<prefix>.r<k>`, value) for every k."""
    yield from ((f"{prefix}.r{k}", value) for k, value in recalls.items())
