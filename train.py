"""The one training loop.

    coaug train svaclr --data catalog.parquet optim.lr=0.3 train.epochs=50      (several GPUs: see engine/launch.py)

A step: rows of this rank -> embeddings -> loss over the global batch -> gradients averaged over ranks -> optimiser
-> the method's memory, where it has one.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

import torch

from coaug.config import ConfigError, dump
from coaug.engine import distributed, gradcache, run_config
from coaug.engine.batchnorm import running_statistics
from coaug.engine.checkpoint import Checkpoints, write_whole
from coaug.engine.distributed import Ranks
from coaug.engine.errors import Stopped, TrainError
from coaug.engine.export import save_encoders
from coaug.engine.folder import not_finite, set_aside, summary, write_json
from coaug.engine.inherit import inherit
from coaug.engine.log import Row, RunLog, rows_of, say
from coaug.engine.optim import build_optimizer, set_learning_rate
from coaug.engine.parts import build_method, clips_per_step, epochs, evaluate, open_loader
from coaug.engine.precision import autocast
from coaug.engine.profile import Clock, region, trace
from coaug.engine.run_config import RunConfig
from coaug.engine.schedule import learning_rate
from coaug.engine.state import Training
from coaug.engine.stop import StopRequest, Verdict
from coaug.eval.table import show
from coaug.models.method import Method
from coaug.pipelines.batch import Batch
from coaug.pipelines.catalog import Catalog, CatalogError
from coaug.pipelines.loader import LoaderError


def train(
    config: RunConfig, catalog: Catalog, out: Path, *, resume: bool = False, init: Path | None = None
) -> dict[str, float]:
    """Trains, saves the encoders and evaluates.

    Args:
        config: see `run_config.load`.
        catalog: the recordings; `config.train.split` of them are trained on.
        out: the run's folder: checkpoints, config.yaml, log.jsonl, tensorboard/, *.safetensors, metrics.json.
        resume: go on from the newest readable checkpoint in `out`.
        init: begin from another run's weights and memory (see `inherit`); nothing to a run that is resumed.

    Returns:
        The figures, as in metrics.json; on ranks other than 0 those of the evaluators only.

    Raises:
        ConfigError: the config does not fit the machine or the catalog.
        TrainError: the run cannot start or go on.
        Stopped: a signal ended it, after a checkpoint.
    """
    with distributed.session() as ranks:
        method = fit(config, catalog, out, ranks, resume, init)
        if ranks.first:
            save_encoders(method, config, out)
        metrics = evaluate(method, config, catalog, ranks.device)
        if ranks.first:
            metrics = summary(rows_of(out / "log.jsonl"), clips_per_step(config)) | metrics
            write_json(out / "metrics.json", metrics)
            show(metrics)
    return metrics


def fit(
    config: RunConfig, catalog: Catalog, out: Path, ranks: Ranks, resume: bool, init: Path | None = None
) -> Method:
    """Every step, on every rank. Returns the trained method."""
    torch.manual_seed(config.train.seed)
    loader = open_loader(config, catalog, ranks)
    method = build_method(config, ranks.device, loader.catalog.ids)
    training = Training(method, build_optimizer(method, config.optim), loader, config, catalog.fingerprint)
    saved = Checkpoints(out / "checkpoints", config.train.checkpoint_every, config.train.keep, len(loader))
    step, total = begin(training, saved, out, ranks, resume, init), config.train.epochs * len(loader)
    if ranks.first:  # `coaug eval` looks it up
        write_whole(out / "catalog.txt", lambda part: part.write_text(str(catalog.path)))
    verdict = Verdict.GO_ON
    with (
        closing(loader),
        RunLog(out, step, total, config.train.log_every, enabled=ranks.first) as log,
        StopRequest(config.train.max_minutes) as stop,
        trace(out / "profile") as profiler,
    ):
        clock = Clock()
        for batch in clock.over(islice(epochs(loader), total - step)):
            row = train_step(training, batch, step, len(loader), out)
            step += 1
            seconds, waited = clock.lap()
            row |= {"clips_per_s": clips_per_step(config) / seconds, "data_wait": waited / seconds}
            log.step(row, seconds, loader.stats() if step % config.train.log_every == 0 else None)
            verdict = Verdict(distributed.largest(stop.verdict, ranks.device))
            if saved.due(step) or step == total or verdict is not Verdict.GO_ON:
                save(training, saved, step, ranks)
            if profiler:
                profiler.step()
            if verdict is not Verdict.GO_ON:
                break
    if verdict is Verdict.LEAVE:
        when = f"after step {step} of {total}"
        raise Stopped(f"stopped by {stop.name} {when}; --resume goes on from there", stop.code)
    return method


def train_step(training: Training, batch: Batch, step: int, steps_per_epoch: int, out: Path) -> Row:
    """One update of the parameters; returns the figures of the step."""
    method, optimizer, config = training.method, training.optimizer, training.config
    lr = learning_rate(step, config.optim, config.train.epochs, steps_per_epoch)
    set_learning_rate(optimizer, lr)
    method.train()
    with region("prepare"):
        told = method.before_step(step, steps_per_epoch)
    if told and distributed.rank() == 0:
        say(told)
    cast = autocast(config.train.precision, batch.valid.device)
    parts = math.ceil(len(batch) / (config.train.micro_batch or len(batch)))
    result = gradcache.backward(method, batch, micro_batches=parts, autocast=cast)
    parameters = [p for p in method.parameters() if p.requires_grad]
    with region("average"):
        distributed.average_gradients(parameters, running_statistics(method))
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    named = {"loss": result.loss, "grad_norm": norm, **result.figures}
    values = dict(zip(named, numbers(*named.values()), strict=True))
    if not math.isfinite(values["loss"]) or not math.isfinite(values["grad_norm"]):
        raise not_finite(batch, step + 1, values["loss"], values["grad_norm"], out)
    with region("step"):
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        method.after_step(result.embeddings, result.valid)
    return {"step": step + 1, "epoch": (step + 1) / steps_per_epoch, "lr": lr, **values}


def numbers(*scalars: torch.Tensor) -> list[float]:
    """Scalars as Python numbers: one wait for the device instead of one each."""
    return [float(x) for x in torch.stack([s.detach().double().reshape(()) for s in scalars]).tolist()]


def begin(
    training: Training, saved: Checkpoints, out: Path, ranks: Ranks, resume: bool, init: Path | None = None
) -> int:
    """Brings `training` to its first step, and returns it. All ranks leave in the same state:

    1. with `resume`, every rank reads the newest readable checkpoint (model, memory, optimiser, loader, random state,
       step);
    2. without one, or without `resume`, every rank takes over what is in `init`, rank 0 moves an earlier run's files
       aside, and all begin at step 0;
    3. rank 0 writes config.yaml, the config of what is trained from here on;
    4. rank 0's parameters and buffers go to all.
    """
    tell = say if ranks.first else lambda message: None
    state = saved.newest(tell) if resume else None
    if resume and state is None:
        tell(f"no checkpoint in {saved.folder}: starting from the beginning")
    step = training.restore(state) if state is not None else 0
    if state is None and init is not None:
        inherit(training.method, init, tell)
        distributed.wait()  # until all have read it: it may be what is moved aside
    if ranks.first:
        if state is None:
            set_aside(out, tell)
        write_whole(out / "config.yaml", lambda part: part.write_text(dump(training.config)))
    distributed.broadcast(training.method)
    return step


def save(training: Training, saved: Checkpoints, step: int, ranks: Ranks) -> None:
    """A checkpoint: all ranks contribute, rank 0 writes."""
    state = training.state(step)
    if ranks.first:
        saved.save(step, state)


def main(argv: Sequence[str] | None = None) -> int:
    """What every process of a run executes: `python -m coaug.train METHOD --data CATALOG`. Returns the exit status."""
    options = parser().parse_intermixed_args(argv)
    try:
        config = run_config.load(options.method, options.overrides)
        if options.print_config:
            print(dump(config), end="")
            return 0
        if options.data is None:
            raise ConfigError("--data: which catalog? make one with `coaug index FOLDER`")
        out = options.out or Path("runs") / config.method
        train(config, Catalog.open(options.data), out, resume=options.resume, init=options.init)
    except (ConfigError, CatalogError, LoaderError, TrainError) as error:
        say(f"coaug train: {error}")
        return 2 if isinstance(error, ConfigError) else 1
    except Stopped as stopped:
        if distributed.environment()[0] == 0:
            say(f"coaug train: {stopped}")
        return stopped.code
    except KeyboardInterrupt:
        say("coaug train: interrupted")
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """The arguments of one training process."""
    parser = argparse.ArgumentParser(prog="coaug train", description="Pre-train an audio-visual method.")
    parser.add_argument("method", help="a preset (svaclr, …) or a YAML file")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="config values, such as optim.lr=0.1"
    )
    parser.add_argument("--data", type=Path, help="catalog (.parquet)")
    parser.add_argument("--out", type=Path, help="the run's folder (default: runs/METHOD)")
    parser.add_argument("--init", type=Path, help="begin from another run's folder, or a checkpoint")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in --out")
    parser.add_argument("--print-config", action="store_true", help="print the final config and stop")
    return parser


if __name__ == "__main__":
    sys.exit(main())
