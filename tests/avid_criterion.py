"""Runs the authors' criterion and their search for positives, from a checkout of facebookresearch/AVID-CMA.

    python avid_criterion.py CHECKOUT INPUT.pt OUTPUT.pt

Their code wants GPUs; here `.cuda()` does nothing, and indices are given instead of drawn.
"""

from __future__ import annotations

import queue
import sys
from typing import Any

import torch
from torch import Tensor, nn

EXPANSIONS = {"agreement": "consensus", "either": "union", "video": "video", "audio": "audio"}


def criterion(case: dict[str, Any]) -> nn.Module:
    """AVID or AVID_CMA with this memory, these positives and these indices."""
    import criterions

    count, width = case["video_memory"].shape
    given: dict[str, Any] = {"num_data": count, "embedding_dim": width, "momentum": case["momentum"]}
    given["num_negatives"] = case["negatives"].shape[1]
    if "positives" in case:
        found = criterions.avid_cma.AVIDSimilarityPositiveExpansion
        found.find_correspondences = lambda self: None
        found.memory_sampling = lambda self, y: (case["positives"], case["negatives"])
        theirs = criterions.AVID_CMA(
            **given,
            num_negatives_within=case["within"],
            wModalPosCoeff=case["weight"],
            sampling_args={"pos_k": 2},
        )
    else:
        theirs = criterions.AVID(**given, xModal_coeff=case["cross"], wModal_coeff=case["self"])
        theirs.nce_average.sample_negatives = lambda y, count: case["negatives"]
    theirs.nce_average.view1_mem = case["video_memory"].clone()
    theirs.nce_average.view2_mem = case["audio_memory"].clone()
    doubled: nn.Module = theirs.double()
    return doubled


def step(case: dict[str, Any]) -> dict[str, Any]:
    """One step of SGD on two linear layers."""
    theirs, layers = criterion(case), [nn.Linear(*w.T.shape, bias=False).double() for w in case["weights"]]
    for layer, weight in zip(layers, case["weights"], strict=True):
        layer.weight.data.copy_(weight)
    video, audio = (layer(x) for layer, x in zip(layers, case["inputs"], strict=True))
    loss, _ = theirs(video, audio, case["ids"])
    loss.backward()
    torch.optim.SGD([layer.weight for layer in layers], case["lr"]).step()
    bank: Any = theirs.nce_average
    return {
        "loss": loss.detach(),
        "z": theirs.criterion.avg_exp_score,  # type: ignore[union-attr]
        "weights": [layer.weight.detach() for layer in layers],
        "video_memory": bank.view1_mem,
        "audio_memory": bank.view2_mem,
    }


def search(video: Tensor, audio: Tensor, expansion: str, count: int) -> Tensor:
    """(N, count) ascending."""
    import criterions

    jobs: Any = queue.Queue()
    found: Any = queue.Queue()
    for first in range(0, len(video), 16):
        jobs.put(list(range(first, min(first + 16, len(video)))))
    jobs.put(None)
    kind = {"type": EXPANSIONS[expansion], "pos_k": count}
    criterions.avid_cma.CMASampler(video, audio, kind).sample_instance(0, jobs, found)
    rows = torch.full((len(video), count), -1)
    while (part := found.get())[0] is not None:
        rows[part[0]] = torch.from_numpy(part[1])
    return rows


def main(checkout: str, source: str, target: str) -> None:
    sys.path.insert(0, checkout)
    torch.Tensor.cuda = nn.Module.cuda = lambda self, *_, **__: self  # type: ignore[assignment]
    given = torch.load(source)
    sets = {name: search(*given["memory"], name, given["found"]) for name in EXPANSIONS}
    torch.save({"steps": {name: step(case) for name, case in given["cases"].items()}, "sets": sets}, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
