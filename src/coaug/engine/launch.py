"""`GPUS=n`: one process, torchrun, Slurm, or the lines to type. Nothing here schedules anything itself.

no GPU, or GPUS=0      this process, on the CPU          (PROCS=n: n CPU processes over gloo)
n <= GPUs here         torchrun --standalone             (n = 1: this process)
more                   sbatch, if Slurm is here; else the torchrun line for each node is printed
"""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import torch

from .checkpoint import write_whole
from .distributed import cpu_threads
from .log import say
from .stop import STOP_FILE

MODULE = ["-m", "coaug.train"]
PORT = 29500


def launch(argv: Sequence[str], gpus: int | None = None, procs: int | None = None) -> int:
    """Runs `coaug.train` with `argv` on `gpus` GPUs (None: all of this machine, or its CPU).

    Args:
        argv: arguments of `coaug.train`; every path in them must be valid on every node.
        gpus: GPUs in all; 0 is the CPU.
        procs: run on the CPU in this many processes instead.

    Returns:
        The exit status: 128 + signal after a clean stop, 2 where nothing could be started.
    """
    here = torch.cuda.device_count()
    wanted = here if gpus is None else gpus
    if procs or wanted == 0:
        alone = (
            procs or 1
        ) == 1 and here == 0  # torch cannot be told to forget GPUs it has seen: a new process can
        return _here(argv) if alone else _torchrun(argv, procs or 1, cpu=True)
    if wanted <= here:
        return _here(argv) if wanted == 1 else _torchrun(argv, wanted)
    per_node = gpus_per_node() or here or 8
    if shutil.which("sbatch"):
        return _submit(argv, wanted, per_node)
    say(instructions(argv, wanted, per_node, here))
    return 2


def _here(argv: Sequence[str]) -> int:
    from ..train import main

    return main(list(argv))


def _torchrun(argv: Sequence[str], processes: int, cpu: bool = False) -> int:
    """torchrun on this machine; SIGTERM and Ctrl-C reach the workers as a file, a second one kills them."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    with tempfile.TemporaryDirectory() as folder:
        stop_file = Path(folder) / "stop"
        environment = {
            "OMP_NUM_THREADS": str(cpu_threads(processes)),
            **os.environ,
            STOP_FILE: str(stop_file),
        }
        if cpu:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        child = subprocess.Popen([*command, *MODULE, *argv], env=environment, start_new_session=True)
        return _wait(child, stop_file)


def _wait(child: subprocess.Popen[bytes], stop_file: Path) -> int:
    received: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) == 1:
            write_whole(stop_file, lambda part: part.write_text(signal.Signals(number).name))
        else:
            child.terminate()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        status = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 + received[0] if received else status


def gpus_per_node() -> int | None:
    """GPUs of a node: $GPUS_PER_NODE, or the largest that Slurm's `sinfo` lists; None if neither knows."""
    if asked := os.environ.get("GPUS_PER_NODE"):
        return int(asked)
    if not shutil.which("sinfo"):
        return None
    listed = subprocess.run(["sinfo", "-h", "-o", "%G"], capture_output=True, text=True, check=False).stdout
    counts = [int(n) for n in re.findall(r"gpu(?::[^:,()\s]+)?:(\d+)", listed)]
    return max(counts, default=None)


def sbatch_script(argv: Sequence[str], gpus: int, per_node: int) -> str:
    """A batch script for `gpus` GPUs; it is requeued after preemption and goes on from its last checkpoint."""
    nodes, share = math.ceil(gpus / per_node), min(gpus, per_node)
    arguments = shlex.join(argv if "--resume" in argv else [*argv, "--resume"])
    return f"""#!/bin/bash
#SBATCH --job-name=coaug
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={share}
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --signal=TERM@120
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun {shlex.quote(sys.executable)} -m torch.distributed.run --nnodes={nodes} --nproc-per-node={share} \\
  --rdzv-backend=c10d --rdzv-endpoint="$head:{PORT}" --rdzv-id="$SLURM_JOB_ID" \\
  {shlex.join(MODULE)} {arguments}
"""


def _submit(argv: Sequence[str], gpus: int, per_node: int) -> int:
    if gpus > per_node and gpus % per_node:
        say(
            f"GPUS={gpus} does not fill whole nodes of {per_node} GPUs; set GPUS_PER_NODE if that count is wrong"
        )
        return 2
    script = sbatch_script(argv, gpus, per_node)
    done = subprocess.run(["sbatch", "--parsable"], input=script, capture_output=True, text=True, check=False)
    if done.returncode:
        say(f"sbatch refused the job: {' '.join(done.stderr.split())}")
        return 2
    job = done.stdout.strip().partition(";")[0]
    say(f"submitted as Slurm job {job} ({gpus} GPUs); output in slurm-{job}.out, `squeue -j {job}` shows it")
    return 0


def instructions(argv: Sequence[str], gpus: int, per_node: int, here: int) -> str:
    """Why nothing was started, and what to type on each node."""
    nodes, share = math.ceil(gpus / per_node), min(gpus, per_node)
    found = f"{here} GPU{'s' * (here != 1)}" if here else "no GPU"
    lines = [
        f"GPUS={gpus}: this machine has {found} and no Slurm (sbatch). On {nodes} node{'s' * (nodes > 1)} with {share} "
        "GPUs each, run the line of each node (HOST: the first node's name or address; all paths shared). "
        "Or leave GPUS out to run here."
    ]
    for node in range(nodes):
        count = min(share, gpus - node * share)
        lines.append(
            f"node {node}: torchrun --nnodes={nodes} --node-rank={node} --nproc-per-node={count} --rdzv-backend=c10d "
            f"--rdzv-endpoint=HOST:{PORT} --rdzv-id=coaug {shlex.join(MODULE)} {shlex.join(argv)}"
        )
    return "\n".join(lines)
