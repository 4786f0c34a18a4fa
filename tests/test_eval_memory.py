"""Measures of a memory against loops over pairs in float64 and closed forms."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from coaug.eval import memory as evaluator
from coaug.eval.bank import Bank, bank_of, labels_of
from coaug.eval.calibration import calibration, partners, spread
from coaug.eval.precision import EXPANSIONS, KS, by_chance, precision_at
from coaug.eval.subject import EvalError

N, CLASSES = 60, 6


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def bank(count: int = N, noise: float = 0.5, offset: float = 0.0) -> Bank:
    """Two classes share a picture, others a sound; both together tell all of them apart."""
    label = torch.arange(count) % CLASSES
    video = draw(CLASSES // 2, 16, seed=1)[label // 2] + noise * draw(count, 16, seed=2) + offset
    audio = draw(CLASSES // 2, 16, seed=3)[(label + 1) // 2 % 3] + noise * draw(count, 16, seed=4) + offset
    return Bank(torch.arange(count) * 7 + 5, label, F.normalize(video, dim=1), F.normalize(audio, dim=1))


def literal_precision(known: Bank, expansion: str, k: int) -> float:
    video, audio = (x.double().numpy() @ x.double().numpy().T for x in (known.video, known.audio))
    scores = {
        "agreement": np.minimum(video, audio),
        "either": np.maximum(video, audio),
        "video": video,
        "audio": audio,
    }[expansion]
    hits = []
    for i in range(len(known)):
        order = sorted((j for j in range(len(known)) if j != i), key=lambda j: -scores[i, j])
        hits += [bool(known.label[j] == known.label[i]) for j in order[:k]]
    return float(np.mean(hits))


@pytest.mark.parametrize("expansion", EXPANSIONS)
def test_precision_is_that_of_a_loop(expansion: str) -> None:
    found = precision_at(bank(), expansion)
    assert list(found) == [1, 2, 4, 8, 16, 32]  # 64 are not there
    for k, value in found.items():
        assert value == pytest.approx(literal_precision(bank(), expansion, k), abs=1e-12)


def test_agreement_is_more_precise_where_each_modality_confuses_classes() -> None:
    found = {name: precision_at(bank(240), name)[16] for name in EXPANSIONS}
    assert found["agreement"] > 0.8
    assert found["agreement"] > max(found["video"], found["audio"], found["either"]) + 0.2


def test_precision_asks_no_more_than_it_may_and_leaves_out_what_has_no_label() -> None:
    known = bank()
    asked = precision_at(known, "video", queries=20, seed=1)
    assert asked != precision_at(known, "video", queries=20, seed=2)
    hidden = Bank(known.ids, known.label.where(known.label < 4, torch.tensor(-1)), known.video, known.audio)
    assert precision_at(hidden, "video") == precision_at(known.rows(known.label < 4), "video")
    assert precision_at(known.rows(known.label > 99), "video") == {}


def test_precision_by_chance_is_that_of_all_pairs() -> None:
    label = torch.tensor([0, 0, 0, 1, 1, 2, -1])
    known = label[label >= 0].tolist()
    pairs = [a == b for i, a in enumerate(known) for j, b in enumerate(known) if i != j]
    assert by_chance(label) == pytest.approx(np.mean(pairs))


def test_calibration_is_that_of_a_loop_over_pairs() -> None:
    given = bank(offset=0.3)
    pairs = [(i, j) for i in range(N) for j in range(N) if i != j]
    sides = {
        "video": (given.video, given.video),
        "audio": (given.audio,) * 2,
        "cross": (given.video, given.audio),
    }
    for name, (x, y) in sides.items():
        cosines = [float(x[i].double() @ y[j].double()) for i, j in pairs]
        found = calibration(given)[name]
        assert found.mean == pytest.approx(np.mean(cosines), abs=1e-12)
        assert found.std == pytest.approx(np.std(cosines), abs=1e-9)
    own = [float(given.video[i].double() @ given.audio[i].double()) for i in range(N)]
    assert partners(given) == pytest.approx(np.mean(own))
    assert calibration(given.rows(torch.tensor([0]))) == {}


def test_evenly_spread_rows_are_calibrated_and_collapsed_ones_are_not() -> None:
    """Of independent unit vectors in d dimensions the cosine has mean 0 and variance 1 / d."""
    rows = F.normalize(draw(4000, 128), dim=1)
    found = spread(rows, rows)
    assert found.mean == pytest.approx(0, abs=1e-3)
    assert found.std == pytest.approx(128**-0.5, rel=0.01)
    same = F.normalize(torch.ones(50, 8), dim=1)
    assert spread(same, same).mean == pytest.approx(1)
    assert spread(same, same).std == pytest.approx(0, abs=1e-6)


class Remembered:
    """Stands for a Memory."""

    def __init__(self, ids: Tensor, **rows: Tensor) -> None:
        self.ids, self._rows = ids, rows

    def __getitem__(self, modality: str) -> Any:
        return SimpleNamespace(whole=lambda: self._rows[modality])


def subject(found: Bank | None, labels: Tensor | None = None) -> Any:
    catalog = memory = None
    if found is not None:
        order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))
        label = found.label if labels is None else labels
        catalog = SimpleNamespace(ids=found.ids[order].numpy(), labels=label[order].numpy())
        memory = Remembered(found.ids, video=found.video, audio=found.audio)
    return SimpleNamespace(method=SimpleNamespace(memory=memory), catalog=catalog, seed=0)


def test_the_evaluator_has_the_promised_figures() -> None:
    found = dict(evaluator.evaluate(subject(bank())))
    promised = {f"memory.linear.{s}.{f}" for s in ("video", "audio", "both") for f in ("top1", "std")}
    promised |= {f"memory.precision.{e}.p{k}" for e in EXPANSIONS for k in KS if k <= 32}
    promised |= {f"memory.calibration.{s}.{f}" for s in ("video", "audio", "cross") for f in ("mean", "std")}
    assert set(found) == promised | {"memory.calibration.own.mean", "memory.precision.chance"}
    assert found["memory.precision.agreement.p8"] == pytest.approx(literal_precision(bank(), "agreement", 8))
    assert found["memory.linear.both.top1"] > 0.9 > 0.6 > found["memory.linear.video.top1"] > 0.3
    assert found["memory.linear.video.std"] > 0


def test_rows_are_matched_with_the_catalog_by_id_and_scaled_to_unit_length() -> None:
    given = bank()
    longer = Remembered(given.ids, video=3 * given.video, audio=given.audio.half())
    found = bank_of(SimpleNamespace(memory=longer), subject(given).catalog)  # type: ignore[arg-type]
    assert found is not None
    assert torch.equal(found.label, given.label)
    torch.testing.assert_close(found.video, given.video)
    torch.testing.assert_close(found.audio, given.audio, rtol=0, atol=1e-3)
    fewer = SimpleNamespace(ids=given.ids[:3].numpy(), labels=given.label[:3].numpy())
    assert labels_of(given.ids, fewer).tolist() == [0, 1, 2] + [-1] * (N - 3)  # type: ignore[arg-type]
    nothing = SimpleNamespace(ids=np.zeros(0, np.int64), labels=np.zeros(0, np.int64))
    assert labels_of(given.ids[:2], nothing).tolist() == [-1, -1]  # type: ignore[arg-type]


def test_a_method_without_a_memory_yields_nothing_and_one_without_labels_says_so() -> None:
    assert list(evaluator.evaluate(subject(None))) == []
    nameless = evaluator.evaluate(subject(bank(), torch.full((N,), -1)))
    assert next(nameless)[0] == "memory.calibration.video.mean"
    with pytest.raises(EvalError, match="none of the 60 remembered recordings has a label"):
        list(nameless)
