"""Several processes as one: gathering with gradients, and batch statistics over the joined batch.

With one process every function here is the identity, so the code that calls them does not ask how many there are.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def world_size() -> int:
    """How many processes train together; 1 when no process group is up."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient.chunk(world_size())[rank()]


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        x = x.clone()
        dist.all_reduce(x)
        return x / world_size()

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient / world_size()


def gather(x: Tensor) -> Tensor:
    """The rows (N, ...) of every process, joined in order of rank: (world size · N, ...). Gradients flow back to each.

    The backward pass sums what all processes ask of these rows. A loss of the joined batch, computed alike in every
    process, then gives W times its gradient, and the averaging of distributed data-parallel training takes the W away.

    >>> gather(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """
    return _Gather.apply(x) if world_size() > 1 else x


class GlobalBatchNorm(_BatchNorm):
    """Batch normalisation with the statistics of all processes' batches (SimCLR, §2.2, global BN), on any device.

    torch's SyncBatchNorm does the same on GPUs only. Batches must be of one size in all processes.
    """

    def _check_input_dim(self, x):
        if x.ndim < 2:
            raise ValueError(f"batch norm needs (N, C, ...) inputs, got {tuple(x.shape)}")

    def forward(self, x):
        if not self.training or world_size() == 1:
            return super().forward(x)
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        mean = _Mean.apply(wide.mean(axes))
        centred = wide - mean.view(shape)
        variance = _Mean.apply((centred**2).mean(axes))
        if self.track_running_stats:
            count = world_size() * x.numel() // x.shape[1]
            with torch.no_grad():
                self.num_batches_tracked += 1
                part = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean, part)
                self.running_var.lerp_(variance * count / (count - 1), part)
        y = centred / (variance.view(shape) + self.eps).sqrt()
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)


def use_global_batch_norm(module: nn.Module) -> None:
    """Replace every batch norm inside `module`, in place, by one over all processes; parameters are shared."""
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm) and not isinstance(child, GlobalBatchNorm):
            options = {"eps": child.eps, "momentum": child.momentum, "affine": child.affine}
            swapped = GlobalBatchNorm(child.num_features, **options)
            swapped.track_running_stats = child.track_running_stats
            swapped._parameters, swapped._buffers = child._parameters, child._buffers
            swapped.training = child.training
            setattr(module, name, swapped)
        else:
            use_global_batch_norm(child)
