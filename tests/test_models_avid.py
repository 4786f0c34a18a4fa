"""AVID and CMA: the equations on the method's own path, what is drawn for it, and what it says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from avid_thin import RECORDINGS, clips, thin
from scipy import integrate, special, stats
from torch import Tensor, nn
from torch.nn.functional import normalize

from coaug.config import ConfigError, build
from coaug.engine import gradcache
from coaug.kernels import agreement_topk, sample_negatives
from coaug.losses.nce import Draw, Partition, nce, nce_of
from coaug.models.avid import Avid
from coaug.models.avid_checkpoint import save_published
from coaug.models.cma import CMA
from coaug.models.positives import PositivesConfig, chosen, excluded
from coaug.models.svaclr import SvaCLR

IDS = [5, 9, 3, 30, 12, 7, 22, 39]  # 3 is not valid


def literal(
    x: Tensor, bank: Tensor, positives: list[list[int]], negatives: Tensor, z: float, tau: float
) -> Tensor:
    """Mean of Eq. 3 over positives (Eq. 9), of each query, in float64."""
    n, k, losses = len(bank), negatives.shape[1], []
    for b, query in enumerate(x.double()):
        terms = []
        for p in positives[b]:
            q = torch.exp(query @ bank[p].double() / tau) / (n * z)
            loss = -torch.log(q / (q + k / n))
            for j in negatives[b].tolist():
                q = torch.exp(query @ bank[j].double() / tau) / (n * z)
                loss = loss - torch.log(1 - q / (q + k / n))
            terms.append(loss)
        losses.append(torch.stack(terms).mean())
    return torch.stack(losses)


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize(
    ("task", "pairs"),
    [
        ("cross", [("video", "audio"), ("audio", "video")]),
        ("self", [("video", "video"), ("audio", "audio")]),
        ("joint", [("video", "audio"), ("audio", "video"), ("video", "video"), ("audio", "audio")]),
    ],
)
def test_variants_are_their_equations(task: str, pairs: list[tuple[str, str]], views: int) -> None:
    method, batch = thin(task=task), clips(IDS, views=views)
    method.before_step(7, 5)
    embeddings = {k: v.detach() for k, v in method.embed(batch).items()}
    loss, figures = method.objective(embeddings, batch.valid)
    assert method.memory is not None
    used, banks = batch.valid.repeat_interleave(views), method.memory
    own = torch.tensor(IDS).repeat_interleave(views)[:, None]  # ids 0 ... 39 are their rows
    negatives = sample_negatives(own, RECORDINGS, 16, seed=0, step=7)[used]
    wanted, z = 0.0, None
    for query, target in pairs:
        x, bank = embeddings[query].flatten(0, 1)[used].double(), banks[target].own.double()
        if z is None:  # of the first task, over all valid queries and their negatives
            z = float(torch.exp((bank[negatives] @ x[:, :, None]).squeeze(2) / 0.2).mean())
        wanted += float(literal(x, bank, own[used].tolist(), negatives, z, 0.2).mean())
    assert method.partition.values == {"all": pytest.approx(z, rel=1e-6)}
    assert float(loss) == pytest.approx(wanted, rel=1e-5)
    assert len(figures) == len(pairs)


def test_cma_is_its_equation() -> None:
    options = {"found": 6, "drawn": 4}
    method = thin("cma", positives=options, within=0.5, negatives_within=10)
    assert method.memory is not None
    learn(method, 2)
    told = method.before_step(0, 5)
    video, audio = (method.memory[name].own for name in ("video", "audio"))
    values, sets = agreement_topk(video, audio, 6)
    assert told == f"epoch 0: 6 positives each by agreement, on average {values.mean():.3f} alike"
    batch = clips(IDS)
    embeddings = {k: v.detach() for k, v in method.embed(batch).items()}
    loss, _ = method.objective(embeddings, batch.valid)
    own, used = torch.tensor(IDS), batch.valid
    apart = torch.cat([own[:, None], sets[own]], 1).sort(1).values
    negatives = sample_negatives(apart, RECORDINGS, 16, seed=0, step=0)[used]
    drawn = chosen(sets[own], 4, seed=0, step=0, offset=0)[used].tolist()
    z, (v, a) = method.partition.values["all"], (embeddings[n][used, 0] for n in ("video", "audio"))
    alone = own[used, None].tolist()
    cross = literal(v, audio, alone, negatives, z, 0.2) + literal(a, video, alone, negatives, z, 0.2)
    few = negatives[:, :10]
    within = literal(v, video, drawn, few, z, 0.2) + literal(a, audio, drawn, few, z, 0.2)
    assert float(loss) == pytest.approx(float((cross + 0.5 * within).mean()), rel=1e-5)


def learn(method: Avid, steps: int) -> None:
    """Fills the memory."""
    for step in range(steps):
        method.before_step(step, 10**6) if not isinstance(method, CMA) else None
        batch = clips([(11 * step + i) % RECORDINGS for i in range(20)], epoch=step)
        with torch.no_grad():
            method.after_step(method.embed(batch), batch.valid)


@pytest.mark.parametrize("expansion", ["agreement", "video", "audio", "either"])
def test_negatives_are_neither_positives_nor_the_query_and_uniform(expansion: str) -> None:
    method = thin("cma", positives={"found": 7, "drawn": 3, "expansion": expansion}, negatives=64)
    learn(method, 4)
    assert isinstance(method, CMA)
    rows = torch.tensor([4, 17, 33])
    counts, met = np.zeros((3, RECORDINGS), int), np.zeros((3, RECORDINGS), int)
    for step in range(300):
        method._step = step
        if not step:
            method.before_step(0, 10**6)
        terms = method.terms(rows)
        drawn = [
            sample_negatives(t.excluded, RECORDINGS, t.negatives, seed=method._seed, step=step) for t in terms
        ]
        assert all(torch.equal(drawn[0], other) for other in drawn[1:])  # one draw for all tasks
        for b in range(3):
            counts[b] += np.bincount(drawn[0][b], minlength=RECORDINGS)
            met[b] += np.bincount(terms[-1].positives[b], minlength=RECORDINGS)
    assert method.positives is not None
    for b, row in enumerate(rows.tolist()):
        found = method.positives.own[row].tolist()
        left = np.setdiff1d(np.arange(RECORDINGS), [row, *found])
        assert row not in found and len(set(found)) == 7
        assert not counts[b][[row, *found]].any()
        assert stats.chisquare(counts[b][left]).pvalue > 1e-4
        assert met[b].sum() == met[b][found].sum() == 900  # three of the seven, each equally often
        assert stats.chisquare(met[b][found]).pvalue > 1e-4


def test_positives_are_drawn_without_replacement_wherever_the_batch_is_cut() -> None:
    found = torch.randperm(1000, generator=torch.Generator().manual_seed(0))[:80].view(8, 10)
    found[2, 4:] = -1
    whole = chosen(found, 6, seed=1, step=2, offset=0)
    assert all(len(set(row)) == 6 for i, row in enumerate(whole.tolist()) if i != 2)
    assert sorted(whole[2].tolist()) == sorted([-1, -1, *found[2, :4].tolist()])
    parts = [chosen(found[i : i + 2], 6, seed=1, step=2, offset=i) for i in range(0, 8, 2)]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(chosen(found, 6, seed=1, step=3, offset=0), whole)
    assert torch.equal(chosen(found, None, seed=1, step=2, offset=0), found)


def test_excluded_rows_ascend_and_end_in_what_is_none() -> None:
    got = excluded(torch.tensor([5, -1]), torch.tensor([[9, 2, -1], [-1, -1, -1]]), 20)
    assert got.tolist() == [[2, 5, 9, 20], [20, 20, 20, 20]]


D, TAU, K = 128, 0.07, 1024
CLOSED = math.exp(
    special.gammaln(D / 2)
    + (D / 2 - 1) * math.log(2 * TAU)
    + math.log(special.ive(D / 2 - 1, 1 / TAU))
    + 1 / TAU
)


def test_z_and_the_first_loss_of_a_memory_that_knows_nothing() -> None:
    """2,048 queries, uniform on the sphere, against 1,024 negatives each: two million pairs."""
    method = thin(recordings=torch.arange(20_000), head=[8, D], negatives=K, temperature=TAU)
    draw = torch.Generator().manual_seed(0)
    x = {name: normalize(torch.randn(2048, 1, D, generator=draw), dim=2) for name in ("video", "audio")}
    valid = torch.ones(2048, dtype=torch.bool)
    _, figures = method.objective({**x, "sample_id": torch.arange(0, 20_000)[:2048]}, valid)
    z = method.partition.values["all"]
    assert pytest.approx(2.208, abs=1e-3) == CLOSED
    assert z == pytest.approx(CLOSED, rel=0.005)

    def mean_loss(s: float) -> float:
        log_density = special.gammaln(D / 2) - special.gammaln((D - 1) / 2) - math.log(math.pi) / 2
        logit = s / TAU - math.log(K * CLOSED)
        loss = np.logaddexp(0, -logit) + K * np.logaddexp(0, logit)
        return math.exp(log_density + (D - 3) / 2 * math.log1p(-s * s)) * float(loss)

    closed = integrate.quad(mean_loss, -0.999, 0.999, points=[0])[0]
    for name in ("loss.v2a", "loss.a2v"):
        assert float(figures[name]) == pytest.approx(closed, rel=0.01)


def test_z_is_estimated_once_and_by_task_where_asked() -> None:
    shared, apart = thin(task="joint"), thin(task="joint", partition="per_task")
    batch = clips(IDS)
    for method in (shared, apart):
        embeddings = method.embed(batch)
        method.objective(embeddings, torch.zeros(8, dtype=torch.bool))
        assert method.partition.values == {}  # nothing valid, nothing known
        method.objective(embeddings, batch.valid)
        first = dict(method.partition.values)
        method.before_step(1, 5)
        method.objective(embeddings, batch.valid)
        assert method.partition.values == first
    assert list(shared.partition.values) == ["all"]
    assert list(apart.partition.values) == ["v2a", "a2v", "v2v", "a2a"]
    assert apart.partition.values["v2a"] == shared.partition.values["all"]
    assert len(set(apart.partition.values.values())) == 4


@pytest.mark.parametrize("bank_type", [torch.float32, torch.float16])
def test_the_loss_of_rows_at_hand_is_the_loss_of_the_bank(bank_type: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(1)
    bank = normalize(torch.randn(60, 9, generator=draw), dim=1).to(bank_type)
    positives = torch.tensor([[1, 2, -1], [5, -1, -1], [7, 8, 9], [3, 4, 6]])
    apart = positives.masked_fill(positives < 0, 60).sort(1).values
    valid = torch.tensor([True, True, True, False])
    queries = [normalize(torch.randn(4, 9, generator=draw), dim=1).requires_grad_() for _ in range(2)]
    queries[1].data.copy_(queries[0])
    whole = nce(queries[0], bank, positives, apart, negatives=13, partition=2.0, temperature=0.1,
                draw=Draw(3, 4, 5), valid=valid)  # fmt: skip
    negatives = sample_negatives(apart, 60, 13, seed=3, step=4, offset=5)
    given = nce_of(queries[1], bank, positives, negatives, partition=2.0, temperature=0.1, valid=valid)
    torch.testing.assert_close(given.loss, whole.loss, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(given.exp_sum, whole.exp_sum, rtol=1e-6, atol=0)
    one, other = (
        torch.autograd.grad(x.loss.sum(), q)[0] for x, q in zip((whole, given), queries, strict=True)
    )
    torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)


def test_what_is_not_finite_becomes_the_loss() -> None:
    method, batch = thin(), clips(IDS)
    embeddings = {k: v.detach() for k, v in method.embed(batch).items()}
    embeddings["video"][2] = math.nan  # sample 3, which is not valid
    assert method.objective(embeddings, batch.valid)[0].isfinite()
    embeddings["video"][1] = math.nan
    assert method.objective(embeddings, batch.valid)[0].isnan()
    assert method.partition.values["all"] > 0


def test_a_step_trains_every_parameter_and_moves_the_memory() -> None:
    method, batch = thin("cma", positives={"found": 4}), clips(IDS)
    learn(method, 1)
    method.before_step(0, 5)
    assert method.memory is not None
    before = method.memory["video"].own.clone()
    result = gradcache.backward(method.train(), batch, micro_batches=2)
    method.after_step(result.embeddings, result.valid)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())
    moved = (method.memory["video"].own != before).any(1).nonzero().flatten().tolist()
    assert moved == sorted(set(IDS) - {3})


def test_the_schedule_of_positives() -> None:
    once, again = PositivesConfig(first_epoch=3), PositivesConfig(first_epoch=3, every=2)
    assert [e for e in range(10) if once.due(e, 3)] == [3]
    assert [e for e in range(10) if again.due(e, 3)] == [3, 5, 7, 9]
    method = thin("cma", positives={"found": 4, "first_epoch": 1, "every": 1})
    learn(method, 1)
    assert isinstance(method, CMA)
    found = [method.before_step(step, 5)[:8] for step in range(11)]
    assert found == [""] * 5 + ["epoch 1:"] + [""] * 4 + ["epoch 2:"]


def test_positives_of_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"first_epoch: the memory has seen nothing yet; start from a run"):
        thin("cma", positives={"found": 4}).before_step(0, 5)
    with pytest.raises(ConfigError, match=r"found: 39 positives of each of 40 recordings leave no negatives"):
        thin("cma", positives={"found": 39})
    with pytest.raises(ConfigError, match="1 recordings leave none to be told from"):
        thin(recordings=torch.tensor([3]))
    with pytest.raises(ConfigError, match=r"data\.modalities.*'audio' is missing"):
        thin().embed(_silent())


def _silent():  # type: ignore[no-untyped-def]
    batch = clips(IDS)
    return type(batch)(**{**vars(batch), "audio": None})


def test_cma_goes_on_where_avid_ended() -> None:
    avid = thin(seed=1)
    learn(avid, 3)
    avid.objective(avid.embed(clips(IDS)), clips(IDS).valid)
    others = torch.arange(5, 50)  # 0 ... 4 are gone, 40 ... 49 new
    cma = thin("cma", recordings=others, positives={"found": 4, "first_epoch": 7})
    cma.load_state_dict(avid.state_dict())
    assert (
        cma.inherit(avid.memory_state())
        == "memory: 35 recordings taken over, 10 new, 5 of the other run's left out"
    )
    assert cma.memory is not None and avid.memory is not None
    assert torch.equal(cma.memory["audio"].own[:35], avid.memory["audio"].own[5:])
    assert cma.partition.values == avid.partition.values
    assert cma.before_step(0, 5).startswith(
        "epoch 0: 4 positives"
    )  # what was taken over is looked into at once
    assert "starts anew" in thin().inherit({})


def test_state_of_a_run_without_its_recordings() -> None:
    method = thin("cma", positives={"found": 4})
    learn(method, 1)
    method.before_step(0, 5)
    method.objective(method.embed(clips(IDS)), clips(IDS).valid)
    state = method.memory_state()
    alone = type(method)(method.config)  # as an evaluation has it
    assert alone.memory_state() == {}
    alone.load_memory_state({})
    alone.load_memory_state(state)
    again = alone.memory_state()
    assert again.keys() == state.keys()
    for key, value in state.items():
        assert torch.equal(again[key], value) if isinstance(value, Tensor) else again[key] == value


def test_the_authors_checkpoints_are_taken_over(tmp_path) -> None:  # type: ignore[no-untyped-def]
    method, other = thin(), thin()
    for parameter in method.parameters():
        nn.init.normal_(parameter)
    parts = {**method.encoder, **{f"{name}_head": head for name, head in method.projector.items()}}
    criterion = {"nce_average.view1_mem": torch.ones(3, 6), "criterion.avg_exp_score": torch.tensor(2.25)}
    save_published(tmp_path / "x.pth.tar", parts, epoch=4, criterion=criterion)
    told = other.load_published(tmp_path / "x.pth.tar")
    assert told.endswith(
        "networks and heads after epoch 4; its memory is left out, as its rows have no names"
    )
    assert all(torch.equal(a, b) for a, b in zip(method.parameters(), other.parameters(), strict=True))
    assert other.partition == Partition(values={"all": 2.25})


def test_features_are_embeddings_under_the_evaluators_names() -> None:
    method, batch = thin(head_norm=True).eval(), clips(IDS, views=3)
    features, embeddings = method.features(batch), method.embed(batch)
    torch.testing.assert_close(features["video_z"], embeddings["video"])
    torch.testing.assert_close(features["audio_z"], embeddings["audio"])
    assert features["video_pool"].shape == (8, 3, 16)
    assert set(method.features(_silent())) == {"video_z", "video_pool"}
    assert set(method.encoders()) == {"video", "audio"}


def test_defaults_are_the_papers() -> None:
    config = Avid.Config()
    assert (config.negatives, config.temperature, config.memory.momentum) == (1024, 0.07, 0.5)
    assert (config.head, config.video_blocks, config.task) == ((512, 512, 128), (1, 1, 1, 1), "cross")
    assert (CMA.Config().positives.found, CMA.Config().within) == (32, 1.0)
    assert Avid.separable and not SvaCLR.separable
    with pytest.raises(ConfigError, match=r"memory\.momentum|momentum: must lie in 0"):
        build(Avid.Config, {"memory": {"momentum": 1.5}})
