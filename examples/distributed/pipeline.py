"""A pipeline of stages, one a rank, with the 1F1B schedule of PyTorch; its losses are those of the whole model.

trn launch --chip trn2 --cores 4 examples/distributed/pipeline.py
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B

DEVICE = BACKEND = "neuron"
WIDTH, BATCH, MICRO_BATCHES, STEPS = 32, 16, 8, 3


def stage(index: int) -> nn.Module:
    torch.manual_seed(index)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU())


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(BATCH, WIDTH, generator=torch.Generator().manual_seed(step))
    return x, torch.sin(x)


def loss_of(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return ((output - target) ** 2).mean()


def whole_model(world: int) -> list[float]:
    """The same training without a pipeline, on the host."""
    model = nn.Sequential(*(stage(k) for k in range(world)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    losses = []
    for step in range(STEPS):
        x, y = batch(step)
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def main() -> None:
    dist.init_process_group(BACKEND)
    rank, world = dist.get_rank(), dist.get_world_size()
    module = stage(rank).to(DEVICE)
    pipeline = PipelineStage(module, rank, world, torch.device(DEVICE))
    schedule = Schedule1F1B(pipeline, n_microbatches=MICRO_BATCHES, loss_fn=loss_of)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    found = []
    for step in range(STEPS):
        x, y = batch(step)
        losses: list[torch.Tensor] = []
        inputs = (x.to(DEVICE),) if rank == 0 else ()
        targets = {"target": y.to(DEVICE), "losses": losses} if rank == world - 1 else {}
        schedule.step(*inputs, **targets)
        optimizer.step()
        optimizer.zero_grad()
        if losses:
            found.append(sum(loss.item() for loss in losses) / len(losses))
    mine = torch.tensor(found if found else [0.0] * STEPS)
    dist.broadcast(mine, world - 1)
    if rank == 0:
        for step, (ours, theirs) in enumerate(zip(mine.tolist(), whole_model(world), strict=True)):
            print(f"pipeline step {step} loss {ours:.6f}, whole model {theirs:.6f}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
