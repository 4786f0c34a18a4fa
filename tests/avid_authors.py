"""Runs the authors' own code, from a checkout of facebookresearch/AVID-CMA, in a process of its own.

    python avid_authors.py write CHECKOUT FOLDER   checkpoints of random networks, with what these networks give
    python avid_authors.py read CHECKOUT FOLDER    what networks give that are loaded from `FOLDER`/ours-*.pth.tar

Their code wants a GPU for its memory bank; here `.cuda()` does nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

CASES = {
    "depth10": (10, True),
    "depth18": (18, True),
    "depth10-no-pool": (10, False),
    "depth18-no-pool": (18, False),
}
"""Depth of the video network; whether its stem pools and the audio's first block halves (the code knows only that)."""
ROWS = 12
STEP = 1e-3
DTYPES = (torch.float32, torch.float64)


def inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Clips (N, 3, T, H, W) and spectrograms (N, 1, L, F)."""
    draw = torch.Generator().manual_seed(3)
    video = torch.randn(3, 3, 8, 64, 64, generator=draw, dtype=torch.float64)
    return video.to(dtype), torch.randn(3, 1, 60, 65, generator=draw, dtype=torch.float64).to(dtype)


def networks(depth: int, pools: bool, checkpoint: Path | None = None) -> Any:
    import models

    wrapper: Any = models.av_wrapper(
        "R2Plus1D", {"depth": depth}, "Conv2D", {"depth": 10}, [512, 512, 128], checkpoint and str(checkpoint)
    )
    if not pools:  # Table 9's sizes
        wrapper.video_model.conv1 = wrapper.video_model.conv1[:3]
        wrapper.audio_model.block1.conv1.stride = (1, 1)
    return wrapper


def randomise(wrapper: nn.Module) -> None:
    draw = torch.Generator().manual_seed(5)
    for value in wrapper.state_dict().values():
        if value.is_floating_point() and value.ndim == 1:
            value.copy_(torch.rand(value.shape, generator=draw) + 0.5)


def outputs(wrapper: Any) -> dict[str, Any]:
    """Maps and embeddings in eval mode, embeddings in training mode, the weights after one step of SGD."""
    video, audio = inputs(next(wrapper.parameters()).dtype)
    with torch.no_grad():
        maps = (
            wrapper.eval().video_model(video, return_embs=True),
            wrapper.audio_model(audio, return_embs=True),
        )
        in_eval = wrapper(video, audio)
    in_training = wrapper.train()(video, audio)
    (in_training[0] * in_training[1]).sum().backward()
    torch.optim.SGD(wrapper.parameters(), STEP).step()
    in_training = tuple(x.detach() for x in in_training)
    return {"maps": maps, "eval": in_eval, "train": in_training, "after": wrapper.state_dict()}


def criterion() -> Any:
    """Theirs after one batch, so that the partition function is known."""
    import criterions

    theirs: Any = criterions.AVID(ROWS, 128, num_negatives=8, momentum=0.5)
    theirs(torch.randn(4, 128), torch.randn(4, 128), torch.arange(4))
    return theirs


def write(folder: Path) -> None:
    from utils.main_utils import CheckpointManager

    for name, (depth, pools) in CASES.items():
        torch.manual_seed(depth)
        wrapper, theirs = networks(depth, pools), criterion()
        randomise(wrapper)
        optimizer = torch.optim.Adam([*wrapper.parameters(), *theirs.parameters()])
        kept = {"model": nn.DataParallel(wrapper), "optimizer": optimizer, "train_criterion": theirs}
        file = folder / f"{name}.pth.tar"
        CheckpointManager(str(folder)).save(7, filename=file.name, **kept)
        results = {dtype: outputs(networks(depth, pools, file).to(dtype)) for dtype in DTYPES}
        torch.save(results | {"criterion": theirs.state_dict()}, folder / f"{name}-results.pt")


def read(folder: Path) -> None:
    from utils.main_utils import CheckpointManager

    for name, (depth, pools) in CASES.items():
        file, theirs = folder / f"ours-{name}.pth.tar", criterion()
        wrapper = networks(depth, pools, file)
        resumed = networks(depth, pools)
        model = nn.DataParallel(resumed)
        CheckpointManager(str(folder)).restore(str(file), model=model, train_criterion=theirs)
        same = all(
            torch.equal(a, b)
            for a, b in zip(*(w.state_dict().values() for w in (wrapper, resumed)), strict=True)
        )
        results = {"criterion": theirs.state_dict(), "same": same, torch.float64: outputs(wrapper.double())}
        torch.save(results, folder / f"ours-{name}-results.pt")


if __name__ == "__main__":
    task, checkout, folder = sys.argv[1:]
    sys.path.insert(0, checkout)
    torch.Tensor.cuda = nn.Module.cuda = lambda self, *_, **__: self  # type: ignore[assignment]
    {"write": write, "read": read}[task](Path(folder))
