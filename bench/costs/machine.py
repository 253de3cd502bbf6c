"""What this machine can do at best, and what a graph asks of it: the floor under a measured time."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from costs.sides import Made

MAKES_NOTHING = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")  # memory that is not written


def rates(device: str, threads: int) -> Made:
    """Work: one large product of matrices, and one large copy. Figures: operations and bytes a second."""
    torch.set_num_threads(threads)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    times = 20 if device == "cuda" else 1
    a, b = torch.randn(2048, 1024, device=device), torch.randn(1024, 1024, device=device)
    source = torch.randn(2**24, device=device)  # 64 MiB: more than caches hold
    target = torch.empty_like(source)

    def timed(do: Callable) -> float:
        wait()
        start = time.perf_counter() if device == "cuda" else time.process_time()
        for _ in range(times):
            do()
        wait()
        return ((time.perf_counter() if device == "cuda" else time.process_time()) - start) / times

    def work() -> dict:
        product, copy = timed(lambda: torch.mm(a, b)), timed(lambda: target.copy_(source))
        return {"flops": 2 * 2048 * 1024 * 1024 / product, "bytes": 2 * 4 * source.numel() / copy}

    work()
    return work, {}


class Moved(TorchDispatchMode):
    """Counts the bytes that operations read and write; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in MAKES_NOTHING:
            return out
        read = [x for x in tree_leaves((args, kwargs or {})) if isinstance(x, torch.Tensor)]
        known = {x.untyped_storage().data_ptr() for x in read}
        made = [x for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        new = [x for x in made if x.untyped_storage().data_ptr() not in known]
        changed = made if func._schema.is_mutable else []
        if new or changed:
            self.nbytes += sum(map(_nbytes, (*read, *new, *changed)))
        return out


def _nbytes(x: torch.Tensor) -> int:
    """Bytes of what a tensor holds; of an expanded one those that are there."""
    return min(x.numel() * x.element_size(), x.untyped_storage().nbytes())


def count(work: Callable) -> dict:
    """{"flops": operations of the products of matrices, "bytes": moved by all operations} of work()."""
    with FlopCounterMode(display=False) as flops, Moved() as moved:
        work()
    return {"flops": flops.get_total_flops(), "bytes": moved.nbytes}
