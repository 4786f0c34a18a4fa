"""Against the authors' own criterion: AVID_CMA=<checkout of github.com/facebookresearch/AVID-CMA> pytest, else skipped.

Fed the same embeddings, ids, memory and random indices, one step changes weights and memory alike. Their loss is a
mean where the paper's Eq. 4-6 and 10 are sums, so ours is divided. Left out is where their code is known to be wrong:
queries among their own negatives, duplicates in a batch, and the within-modal instance task of CMA.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import avid_criterion as authors
import pytest
import torch
from avid_thin import thin
from torch import Tensor
from torch.nn.functional import normalize

from coaug.kernels import sample_negatives
from coaug.models.avid import Avid
from coaug.models.cma import CMA
from coaug.models.positives import MODES, PositivesConfig, find

N, D, B, LR = 300, 24, 16, 0.3
BASE: dict[str, Any] = {"recordings": torch.arange(N), "head": [8, D], "temperature": 0.07, "negatives": 50}
CMA_SETS: dict[str, Any] = {"positives": {"found": 9, "drawn": 5}, "negatives_within": 20}
CASES: dict[
    str, tuple[str, dict[str, Any], float, dict[str, Any]]
] = {  # ours, theirs = ours / divisor, their options
    "cross": ("avid", {"task": "cross"}, 2, {"cross": 1.0, "self": 0.0}),
    "self": ("avid", {"task": "self"}, 2, {"cross": 0.0, "self": 1.0}),
    "joint": ("avid", {"task": "joint"}, 4, {"cross": 1.0, "self": 1.0}),
    "cma": ("cma", {**CMA_SETS, "within": 1.0}, 4, {"within": 20, "weight": 1.0}),
    "cma, lambda 1/2": ("cma", {**CMA_SETS, "within": 0.5}, 3, {"within": 20, "weight": 0.5}),
}


def memory_of(seed: int) -> Tensor:
    """Rows in ten clusters, so that recordings agree."""
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(10, D, generator=draw)[torch.arange(N) % 10]
    return normalize(centres + 0.8 * torch.randn(N, D, generator=draw), dim=1)


def learned(name: str, options: dict[str, Any]) -> Avid:
    """A method in the third epoch, with these memories."""
    method = thin(name, **BASE, **options)
    assert method.memory is not None
    method.memory["video"].own.copy_(memory_of(1))
    method.memory["audio"].own.copy_(memory_of(2))
    method.memory.seen = True
    method.before_step(0, 5)
    method._step = 12
    return method


def inputs() -> dict[str, Any]:
    """Of two linear layers, in float64."""
    draw = torch.Generator().manual_seed(3)
    ids = torch.randperm(N, generator=draw)[:B]
    weights = [torch.randn(D, 12, generator=draw, dtype=torch.float64) for _ in range(2)]
    seen = [torch.randn(B, 12, generator=draw, dtype=torch.float64) for _ in range(2)]
    return {"ids": ids, "weights": weights, "inputs": seen, "lr": LR}


def case(name: str) -> dict[str, Any]:
    """What the authors' code is given."""
    kind, options, _, theirs = CASES[name]
    method, given = learned(kind, options), inputs()
    terms = method.terms(given["ids"])
    drawn = sample_negatives(terms[0].excluded, N, BASE["negatives"], seed=0, step=12)
    memory = {"video_memory": memory_of(1), "audio_memory": memory_of(2), "momentum": 0.5}
    sets = {"positives": terms[-1].positives} if kind == "cma" else {}
    return {**given, **memory, **sets, **theirs, "negatives": drawn}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the authors' code makes of all cases."""
    if not (checkout := os.environ.get("AVID_CMA")):
        pytest.skip("AVID_CMA is not set: the folder of a checkout of github.com/facebookresearch/AVID-CMA")
    folder = tmp_path_factory.mktemp("criterion")
    given = {
        "cases": {name: case(name) for name in CASES},
        "memory": (memory_of(1), memory_of(2)),
        "found": 9,
    }
    torch.save(given, folder / "input.pt")
    command = [
        sys.executable,
        authors.__file__,
        checkout,
        str(folder / "input.pt"),
        str(folder / "output.pt"),
    ]
    subprocess.run(command, check=True, timeout=280)
    found: dict[str, Any] = torch.load(folder / "output.pt")
    return found


@pytest.mark.parametrize("name", CASES)
def test_one_step_equals_the_authors(written: dict[str, Any], name: str) -> None:
    kind, options, divisor, _ = CASES[name]
    method, given, theirs = learned(kind, options), inputs(), written["steps"][name]
    weights = [w.clone().requires_grad_() for w in given["weights"]]
    video, audio = (normalize(x @ w.T, dim=1)[:, None] for x, w in zip(given["inputs"], weights, strict=True))
    embeddings, valid = (
        {"video": video, "audio": audio, "sample_id": given["ids"]},
        torch.ones(B, dtype=torch.bool),
    )
    loss = method.objective(embeddings, valid)[0] / divisor
    loss.backward()
    torch.optim.SGD(weights, LR).step()
    method.after_step({k: v.detach() for k, v in embeddings.items()}, valid)
    assert method.partition.values["all"] == pytest.approx(float(theirs["z"]), rel=1e-6)
    assert loss.item() == pytest.approx(float(theirs["loss"]), rel=1e-5)
    for before, ours, wanted in zip(given["weights"], weights, theirs["weights"], strict=True):
        assert float((wanted - before).abs().max()) > 0.01  # a step was made
        torch.testing.assert_close(ours.detach(), wanted, rtol=1e-5, atol=1e-5)
    assert method.memory is not None
    for modality in ("video", "audio"):
        torch.testing.assert_close(
            method.memory[modality].own.double(), theirs[f"{modality}_memory"], rtol=0, atol=1e-6
        )


@pytest.mark.parametrize("expansion", MODES)
def test_positives_equal_the_authors(written: dict[str, Any], expansion: Any) -> None:
    method = learned("cma", CMA_SETS)
    assert isinstance(method, CMA) and method.memory is not None
    found, _ = find(method.memory, PositivesConfig(found=9, expansion=expansion))
    assert torch.equal(found.own.long().sort(1).values, written["sets"][expansion])
