"""One small model under four kinds of parallelism; every one trains to the single-rank losses.

    trn launch --chip trn2 --cores 8 examples/distributed/train.py --mode ddp     # or fsdp, tp, single
    trn run examples/distributed/train.py --mode single

Nothing here is special to the simulator but the names of the device and the backend.
"""

from __future__ import annotations

import argparse
import os

import torch
import torch.distributed as dist
from torch import nn

DEVICE = BACKEND = "neuron"


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 16))


def batch(step: int, size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(size, 32, generator=generator)
    return x, torch.sin(x[:, :16] * 2)


def parallelise(net: nn.Module, mode: str, world: int) -> nn.Module:
    if mode == "ddp":
        return nn.parallel.DistributedDataParallel(net)
    if mode in ("fsdp", "tp"):
        from torch.distributed.device_mesh import init_device_mesh

        mesh = init_device_mesh(DEVICE, (world,))
        if mode == "fsdp":
            from torch.distributed.fsdp import fully_shard

            for layer in net:
                if isinstance(layer, nn.Linear):
                    fully_shard(layer, mesh=mesh)
            return fully_shard(net, mesh=mesh)
        from torch.distributed.tensor import Replicate
        from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

        return parallelize_module(
            net,
            mesh,
            {"0": ColwiseParallel(), "2": RowwiseParallel(), "4": ColwiseParallel(output_layouts=Replicate())},
        )
    return net


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=["single", "ddp", "fsdp", "tp"], default="ddp")
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world > 1:
        dist.init_process_group(BACKEND)
    net = parallelise(model().to(DEVICE), options.mode, world)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    splits = options.mode in ("ddp", "fsdp")
    for step in range(options.steps):
        x, y = batch(step)
        if splits:  # every rank takes its rows of the batch; the others compute all of it
            rows = len(x) // world
            x, y = x[rank * rows : (rank + 1) * rows], y[rank * rows : (rank + 1) * rows]
        loss = ((net(x.to(DEVICE)) - y.to(DEVICE)) ** 2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        shown = loss.detach().clone()
        if splits and world > 1:
            dist.all_reduce(shown, op=dist.ReduceOp.AVG)
        if rank == 0:
            print(f"{options.mode} step {step} loss {shown.item():.6f}", flush=True)
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
