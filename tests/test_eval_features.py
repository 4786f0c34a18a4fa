"""Features: means over clips, evaluation mode, invalid and repeated rows, several ranks."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from coaug.eval.features import Features, collect, extract
from coaug.eval.still import still
from coaug.models.method import Method
from coaug.pipelines.batch import Batch


def batch_of(ids: list[int], valid: list[bool] | None = None, views: int = 3) -> Batch:
    """Rows that depend on their id alone; the label is id modulo 4."""
    n = len(ids)

    def draw(*shape: int) -> Tensor:
        rows = [torch.randn(*shape, generator=torch.Generator().manual_seed(i)) for i in ids]
        return torch.stack(rows)

    none = torch.zeros(n, views, 2)
    return Batch(
        video=draw(views, 3, 4, 16, 16),
        audio=draw(views, 1, 5, 7),
        video_pts=torch.zeros(n, views, 4),
        audio_pts=none,
        speed=none,
        direction=none,
        sample_id=torch.tensor(ids),
        valid=torch.tensor(valid or [True] * n),
        label=torch.tensor(ids) % 4,
        epoch=0,
        step=0,
    )


class Norm(Method):
    """One batch norm, whose mode shows in the features."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.frozen = nn.BatchNorm1d(5), nn.Dropout(0.5).eval()

    def features(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.audio is not None
        mean = batch.audio.mean((2, 4))
        out: Tensor = self.norm(mean.flatten(0, 1)).view(mean.shape)
        return {"audio_z": out / out.norm(dim=2, keepdim=True), "audio_pool": out}

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        raise NotImplementedError

    def objective(self, embeddings: Any, valid: Tensor) -> Any:
        raise NotImplementedError

    def encoders(self) -> dict[str, nn.Module]:
        return {}


def test_mean_over_clips_and_z_of_unit_length() -> None:
    batch = batch_of([3, 1])
    clips = {"a_z": torch.tensor([[[3.0, 0], [0, 3]], [[0, 2], [0, 4]]]), "pool": torch.ones(2, 2, 1)}
    found = collect([batch], lambda _: clips)
    assert found.sample_id.tolist() == [1, 3]  # sorted
    assert found.label.tolist() == [1, 3]
    root = 0.5**0.5
    torch.testing.assert_close(found["a_z"], torch.tensor([[0.0, 1], [root, root]]))
    assert found["pool"].tolist() == [[1.0], [1.0]]


def test_invalid_and_repeated_rows_are_dropped() -> None:
    batches = [batch_of([5, 2, 9]), batch_of([7, 5, 2], [True, True, False])]
    found = collect(batches, still)
    assert found.sample_id.tolist() == [2, 5, 7, 9]
    alone = collect([batch_of([7])], still)
    torch.testing.assert_close(found.rows(found.sample_id == 7)["video_still"], alone["video_still"])


def test_nothing_valid_is_empty() -> None:
    assert len(collect([batch_of([1, 2], [False, False])], still)) == 0
    assert len(collect([], still)) == 0


def test_running_statistics_are_used_and_modes_restored() -> None:
    method = Norm().train()
    method.frozen.eval()
    before = method.norm.running_mean.clone()  # type: ignore[union-attr]
    whole = extract(method, [batch_of([1, 2, 3])])
    parts = extract(method, [batch_of([1]), batch_of([2, 3])])
    torch.testing.assert_close(whole["audio_pool"], parts["audio_pool"])  # batch statistics would differ
    assert torch.equal(method.norm.running_mean, before)  # type: ignore[arg-type]
    assert method.training
    assert method.norm.training
    assert not method.frozen.training
    assert not whole["audio_z"].requires_grad


def test_autocast_is_entered_and_means_are_float32() -> None:
    seen = []

    class Watch(Norm):
        def features(self, batch: Batch) -> dict[str, Tensor]:
            seen.append(torch.is_autocast_enabled("cpu"))
            return {"audio_pool": torch.ones(len(batch), 2, 3, dtype=torch.bfloat16)}

    found = extract(Watch(), [batch_of([1]), batch_of([2])], autocast=torch.autocast("cpu", torch.bfloat16))
    assert seen == [True, True]
    assert found["audio_pool"].dtype == torch.float32


def test_stills_know_nothing_of_order_in_time() -> None:
    batch = batch_of([1, 2])
    assert batch.video is not None
    assert batch.audio is not None
    turned = Batch(**{**vars(batch), "video": batch.video.flip(3), "audio": batch.audio.flip(4)})
    here, there = still(batch), still(turned)
    torch.testing.assert_close(here["video_still"], there["video_still"])
    torch.testing.assert_close(here["audio_still"], there["audio_still"])
    picture = here["video_still"].view(2, 3, 3, 16, 16)
    torch.testing.assert_close(picture, batch.video.mean(3))  # 16 pixels: no reduction


def _rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    own = (
        [batch_of([1, 4]), batch_of([8, 2], [True, False])]
        if rank == 0
        else [batch_of([3, 2]), batch_of([1, 6])]
    )
    found = collect(own, still)
    Path(folder, f"{rank}.pkl").write_bytes(pickle.dumps(found))
    dist.destroy_process_group()


def test_ranks_are_gathered(tmp_path: Path) -> None:
    mp.spawn(_rank, (str(tmp_path),), nprocs=2)
    found: list[Features] = [pickle.loads((tmp_path / f"{rank}.pkl").read_bytes()) for rank in (0, 1)]
    alone = collect([batch_of([1, 2, 3, 4, 6, 8])], still)
    for features in found:
        assert features.sample_id.tolist() == [1, 2, 3, 4, 6, 8]
        torch.testing.assert_close(features.values, alone.values)


@pytest.mark.parametrize("side", ["video", "audio"])
def test_one_modality_alone(side: str) -> None:
    batch = batch_of([1, 2])
    other = "audio" if side == "video" else "video"
    assert set(still(Batch(**{**vars(batch), other: None}))) == {f"{side}_still"}
