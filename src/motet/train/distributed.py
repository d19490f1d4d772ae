"""Several processes training one model: each has its rows of every batch, all have the loss of the whole.

Started by `torchrun --nproc-per-node N -m motet fit ...`; plain `torch.distributed` underneath. Rows are
gathered, so that contrastive pairs, class weights and masked means are those of the global batch; a
modality that one rank's rows lack has zero gradients there.
"""

from __future__ import annotations

import atexit
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from motet.errors import ConfigError
from motet.types import TokenBatch

Parallel = Literal["ddp", "fsdp"]


@dataclass(frozen=True)
class World:
    """This process among `size`. Alone, nothing here does anything.

    "ddp": every rank has the whole model. "fsdp": each has its shard of every parameter, and a block's
    are gathered only while it runs (FSDP2).
    """

    rank: int = 0
    size: int = 1
    parallel: Parallel = "ddp"

    @property
    def main(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def shard(self, model: nn.Module) -> None:
        """With "fsdp", shard `model` in place; before its optimizer is made."""
        if self.size > 1 and self.parallel == "fsdp":
            from torch.distributed.fsdp import fully_shard  # slow to import, as is DTensor

            _lengthen_scalars(model)
            for block in model.mot.blocks:  # type: ignore[union-attr]
                fully_shard(block)
            fully_shard(model)

    def wrap(self, module: nn.Module) -> nn.Module:
        """With "ddp", the module whose backward averages the gradients over ranks."""
        if self.size == 1 or self.parallel == "fsdp":
            return module
        # Buffers are constant, or their networks stand still: nothing to send around before every step.
        return DistributedDataParallel(module, find_unused_parameters=True, broadcast_buffers=False)

    def unsynchronised(self, module: nn.Module) -> AbstractContextManager[None]:
        """Within it, gradients pile up on their rank."""
        if isinstance(module, DistributedDataParallel):
            return module.no_sync()
        return nullcontext()

    @property
    def waits(self) -> bool:
        """Whether ranks wait for each other while the model runs, not only in between."""
        return self.size > 1 and self.parallel == "fsdp"

    def average(self, module: nn.Module) -> None:
        """The mean over ranks of the gradients that piled up on each; of "fsdp" they are that already.

        A parameter that no rank used keeps none, as with `wrap`.
        """
        if self.size == 1 or self.parallel == "fsdp":
            return
        trained = [p for p in module.parameters() if p.requires_grad]
        used = torch.tensor(
            [p.grad is not None for p in trained], dtype=torch.int32, device=trained[0].device
        )
        dist.all_reduce(used, dist.ReduceOp.MAX)
        for p in itertools.compress(trained, used.tolist()):
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            dist.all_reduce(p.grad)
            p.grad /= self.size

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all ranks, rank 0's first: (B of this rank, ...) -> (B, ...).

        The gradient reaches this rank's rows; it is that of the whole where every rank computes the
        same of the result.
        """
        if self.size == 1:
            return rows
        counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(self.size)]
        dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
        most = max(int(count) for count in counts)
        sent = rows.detach().contiguous()
        sent = sent.to(torch.uint8) if rows.dtype == torch.bool else sent
        sent = torch.cat([sent, sent.new_zeros(most - len(rows), *rows.shape[1:])])
        got = [torch.empty_like(sent) for _ in range(self.size)]
        dist.all_gather(got, sent)
        parts = [part[: int(count)].to(rows.dtype) for part, count in zip(got, counts, strict=True)]
        parts[self.rank] = rows
        return torch.cat(parts)

    def gather_targets(self, batch: TokenBatch) -> TokenBatch:
        """The batch with the targets, groups and weights of all ranks; its tokens stay this rank's.

        Groups are equal over ranks where they mean the same, which the loader sees to.
        """
        weight = torch.ones_like(batch.group, dtype=torch.float32) if batch.weight is None else batch.weight
        return replace(
            batch,
            targets={name: self.gather(batch.targets[name]) for name in sorted(batch.targets)},
            group=self.gather(batch.group),
            weight=self.gather(weight),
        )

    def largest(self, number: int) -> int:
        """The largest of all ranks' numbers."""
        if self.size == 1:
            return number
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        held = torch.tensor(number, device=device)
        dist.all_reduce(held, dist.ReduceOp.MAX)
        return int(held)

    def any(self, yes: bool) -> bool:
        """Whether it is so on any rank."""
        return bool(self.largest(int(yes)))

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Rank 0 goes through alone, then the others: what it wrote they find."""
        if self.size > 1 and not self.main:
            dist.barrier()
        yield
        if self.size > 1 and self.main:
            dist.barrier()


def join(parallel: Parallel = "ddp") -> World:
    """The world that `torchrun` started this process in, until the process ends; else a world of one.

    Raises:
        ConfigError: fewer GPUs than processes on this machine.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    if not dist.is_initialized():
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if torch.cuda.is_available():
            if local >= torch.cuda.device_count():
                raise ConfigError(
                    f"torchrun started process {local + 1} of this machine, which has "
                    f"{torch.cuda.device_count()} GPUs. Choose --nproc-per-node to match."
                )
            torch.cuda.set_device(local)
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(dist.destroy_process_group)
    return World(dist.get_rank(), size, parallel)


def put_together(model: nn.Module, plain: Callable[[], nn.Module]) -> nn.Module:
    """`model`; if it is sharded, a new `plain()` model with its weights. All ranks must call it."""
    if not any(map(sharded, model.parameters())):
        return model
    made = plain().to(next(model.parameters()).device)
    shapes = {name: tensor.shape for name, tensor in made.state_dict().items()}
    tensors = {name: whole(tensor).reshape(shapes[name]) for name, tensor in model.state_dict().items()}
    made.load_state_dict(tensors)
    return made


def _lengthen_scalars(model: nn.Module) -> None:
    """Parameters that are single numbers as vectors of one: FSDP2 shards along the first dimension."""
    for module in list(model.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.ndim == 0:
                setattr(module, name, nn.Parameter(parameter.detach().reshape(1), parameter.requires_grad))


def sharded(tensor: Tensor) -> bool:
    """Whether it is a DTensor, whose class is slow to import."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor put together, on every rank; another as it is. All ranks must call it."""
    return tensor.full_tensor() if sharded(tensor) else tensor  # type: ignore[attr-defined]


def like(tensor: Tensor, model: Tensor) -> Tensor:
    """`tensor`, whole on every rank, sharded and placed as `model` is."""
    tensor = tensor.to(model.device, model.dtype)
    if not sharded(model):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, model.device_mesh, model.placements)  # type: ignore[attr-defined]
