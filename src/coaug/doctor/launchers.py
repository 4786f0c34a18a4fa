"""How several processes are started: torchrun on one machine, Slurm across machines."""

from __future__ import annotations

import shutil
import subprocess
import sys

from .check import Examination, Missing

_RING = (
    "import torch, torch.distributed as d; d.init_process_group('gloo'); x = torch.ones(1); d.all_reduce(x); "
    "assert x.item() == 2; d.destroy_process_group()"
)


def torchrun() -> str:
    """Two processes that add a number over gloo."""
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    done = subprocess.run([*run, sys.executable, "-c", _RING], capture_output=True, text=True, timeout=90)
    if done.returncode:
        raise Missing(
            f"two processes did not meet: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
        )
    return "two processes met over gloo"


def nccl() -> str:
    """Whether torch brings NCCL, which several GPUs talk through."""
    import torch.distributed as dist

    if not dist.is_nccl_available():
        raise Missing("this build of torch has no NCCL")
    return "torch brings it"


def slurm() -> str:
    """Looks for sbatch and srun, and asks the controller for its partitions."""
    absent = [tool for tool in ("sbatch", "srun", "sinfo") if not shutil.which(tool)]
    if absent:
        raise Missing(f"no {', '.join(absent)} in PATH")
    done = subprocess.run(["sinfo", "-h", "-o", "%P"], capture_output=True, text=True, timeout=20)
    if done.returncode:
        raise Missing(
            f"the controller does not answer: {done.stderr.strip()}", "ask the cluster's administrators"
        )
    return f"partitions: {', '.join(done.stdout.split())}"


LAUNCHERS = {
    "torchrun": Examination(torchrun, "allow connections to this host's own name (/etc/hosts, firewall)"),
    "NCCL": Examination(nccl, "install the CUDA build: pip install 'torch>=2.10,<2.11'"),
    "Slurm": Examination(
        slurm, "one machine needs none; on several, coaug train prints a torchrun line for each"
    ),
}
