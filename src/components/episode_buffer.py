"""Episodes as tensors, and the replay buffer that keeps them.

EPyMARL's file and interface: a `scheme` declares every field once, `batch["obs"]` reads one,
`batch[:, :t]` cuts. Axes: B episodes, T+1 observations, then the field's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from utils.memory import free_memory
from utils.memory_needs import of_episodes
from utils.memory_needs import refuse_if_too_large as refuse
from utils.seeding import stream

Scheme = Mapping[str, Mapping[str, Any]]  # {field: what `EpisodeBatch` says of it}


class Sizes(Protocol):
    """What an EnvInfo says of the fields (`envs/vector.py`)."""

    @property
    def n_agents(self) -> int: ...
    @property
    def n_actions(self) -> int: ...
    @property
    def obs_shape(self) -> int: ...
    @property
    def state_shape(self) -> int: ...


def make_scheme(env_info: Sizes, common_reward: bool) -> Scheme:
    """The fields of an episode and their types, as small as their values allow."""
    fits = [(2**8, torch.uint8), (2**15, torch.int16), (2**31, torch.int32)]  # so many actions
    small = next((dtype for most, dtype in fits if env_info.n_actions <= most), torch.int64)
    pixels = {"dtype": torch.uint8, "pixels": True}
    return {
        "state": {"vshape": (env_info.state_shape,)} | (pixels if getattr(env_info, "state_pixels", False) else {}),
        "obs": {"vshape": (env_info.obs_shape,), "group": "agents"}
        | (pixels if getattr(env_info, "pixels", False) else {}),
        "actions": {"vshape": (1,), "group": "agents", "dtype": small},
        "avail_actions": {"vshape": (env_info.n_actions,), "group": "agents", "dtype": torch.bool},
        "reward": {"vshape": (1 if common_reward else env_info.n_agents,)},
        "terminated": {"vshape": (1,), "dtype": torch.bool},
        "truncated": {"vshape": (1,), "dtype": torch.bool},
    }


def scaled(pixels: torch.Tensor) -> torch.Tensor:
    """Numbers of 0 to 255 (uint8) as networks read them: 0..1. The one place where this is done."""
    return pixels.float() / 255


class EpisodeBatch:
    """`batch_size` episodes of up to `max_seq_length` observations. New ones are zero and not filled.

    scheme: {field: {"vshape": shape, "group": "agents" (adds the agent axis), "dtype": torch dtype, "pixels": True
    (kept as uint8, and read as `scaled`)}}.
    groups: {"agents": N}. `filled` [B, T+1, 1] is added: 1 where an observation was stored.
    """

    def __init__(
        self,
        scheme: Scheme,
        groups: dict[str, int],
        batch_size: int,
        max_seq_length: int,
        data: dict[str, Tensor] | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.scheme = {**scheme, "filled": {"vshape": (1,), "dtype": torch.bool}}
        self.groups, self.batch_size, self.max_seq_length, self.device = groups, batch_size, max_seq_length, device
        if data is None:
            data = {
                k: _zeros((batch_size, max_seq_length, *shape), dtype, device)
                for k, (shape, dtype) in shapes(self.scheme, groups).items()
            }
        self.data = data

    @overload
    def __getitem__(self, item: str) -> Tensor: ...
    @overload
    def __getitem__(self, item: int | slice | Tensor | tuple[Any, Any]) -> EpisodeBatch: ...
    def __getitem__(self, item: Any) -> Tensor | EpisodeBatch:
        """A field by name, or a smaller EpisodeBatch by (episodes, time) slices or indices."""
        if isinstance(item, str):
            return scaled(self.data[item]) if self.scheme[item].get("pixels") else self.data[item]
        episodes, time = item if isinstance(item, tuple) else (item, slice(None))
        episodes, time = _kept(episodes, self.batch_size), _kept(time, self.max_seq_length)
        return self._with({k: v[:, time][episodes] for k, v in self.data.items()})

    def update(
        self, data: Mapping[str, Any], bs: Any = slice(None), ts: Any = slice(None), mark_filled: bool = True
    ) -> None:
        """Write {field: values} at episodes `bs` and times `ts`; marks those observations as filled."""
        for k, v in data.items():
            if k not in self.data:
                raise KeyError(f"{k!r} is not in the scheme: {', '.join(self.data)}")
            target = self.data[k]
            v = torch.as_tensor(np.asarray(v) if isinstance(v, list) else v, dtype=target.dtype, device=self.device)
            target[bs, ts] = v.reshape(target[bs, ts].shape)
        if mark_filled:
            self.data["filled"][bs, ts] = True

    def arrays(self) -> dict[str, NDArray[Any]]:
        """{field: numpy array} that share this batch's memory (CPU only): the runner's fast way in."""
        return {k: v.numpy() for k, v in self.data.items()}

    def max_t_filled(self) -> int:
        """Observations in the longest episode."""
        return int(self.data["filled"].sum(dim=1).max())

    def to(self, device: str | torch.device) -> EpisodeBatch:
        """The batch on `device`; itself when it is there already."""
        if torch.device(device) == torch.device(self.device):
            return self
        batch = self._with({k: v.to(device, non_blocking=True) for k, v in self.data.items()})
        batch.device = device
        return batch

    def _with(self, data: dict[str, Tensor]) -> EpisodeBatch:
        b, t = data["filled"].shape[:2]
        return EpisodeBatch(self.scheme, self.groups, b, t, data=data, device=self.device)


class ReplayBuffer(EpisodeBatch):
    """The last `buffer_size` episodes, sampled uniformly. seed: of the first samples; see `begin`."""

    def __init__(
        self,
        scheme: Scheme,
        groups: dict[str, int],
        buffer_size: int,
        max_seq_length: int,
        device: str | torch.device = "cpu",
        seed: int | None = None,
    ) -> None:
        refuse_if_too_large(nbytes(scheme, groups, buffer_size, max_seq_length), buffer_size, device)
        super().__init__(scheme, groups, buffer_size, max_seq_length, device=device)
        for v in self.data.values():
            v.zero_()  # claims the memory: a run that has begun must not die for want of it
        self.buffer_size = buffer_size
        self.inserted = 0  # episodes stored so far, those that were overwritten among them
        self.buffer_index = 0  # where the next episode goes
        self.episodes_in_buffer = 0
        self.lengths = np.zeros(buffer_size, dtype=np.int64)  # observations in each episode
        self.begin(stream(seed))

    def begin(self, source: np.random.SeedSequence) -> None:
        """Sample by this stream from now on."""
        self.rng = np.random.default_rng(source)

    def insert_episode_batch(self, batch: EpisodeBatch) -> None:
        """Store B episodes, over the oldest where the buffer is full; B is at most `buffer_size`."""
        places = (self.buffer_index + np.arange(batch.batch_size)) % self.buffer_size
        lengths = batch["filled"].sum(dim=(1, 2)).cpu().numpy()
        t = int(lengths.max())
        index = torch.as_tensor(places, device=self.device)
        for k, v in self.data.items():
            v[index, :t] = batch.data[k][:, :t].to(self.device)
            v[index, t:] = 0
        self.lengths[places] = lengths
        self._count(self.inserted + batch.batch_size)

    def _count(self, inserted: int) -> None:
        self.inserted, self.buffer_index = inserted, inserted % self.buffer_size
        self.episodes_in_buffer = min(inserted, self.buffer_size)

    def can_sample(self, batch_size: int) -> bool:
        return self.episodes_in_buffer >= batch_size

    def sample(self, batch_size: int, steps: int | None = None) -> EpisodeBatch:
        """`batch_size` different episodes, the longest first, cut to its length; or a stretch of `steps` transitions
        of each, in no order.

        Stretches start at 0, `steps`, 2·`steps`, …, each as likely as the next, so all transitions of an episode
        are equally likely, the last one too.
        """
        if not self.can_sample(batch_size):
            raise ValueError(f"{self.episodes_in_buffer} episodes stored, {batch_size} asked for")
        ids = self.rng.choice(self.episodes_in_buffer, batch_size, replace=False, shuffle=False)
        if steps is None:
            ids = ids[np.argsort(-self.lengths[ids], kind="stable")]
            return self[torch.as_tensor(ids, device=self.device), : int(self.lengths[ids].max())]
        stretches = -(-(self.lengths[ids] - 1) // steps)
        start = steps * self.rng.integers(stretches)  # [B]
        return self._stretches(torch.as_tensor(ids), torch.as_tensor(start), steps)

    def _stretches(self, ids: Tensor, start: Tensor, steps: int) -> EpisodeBatch:
        """Transitions start … start + steps - 1 of the episodes `ids`; those past the end are not filled."""
        t = start[:, None] + torch.arange(steps + 1)  # [B, steps + 1]
        past = (t >= self.max_seq_length).to(self.device)
        ids, t = ids[:, None].to(self.device), t.clamp(max=self.max_seq_length - 1).to(self.device)
        batch = self._with({k: v[ids, t] for k, v in self.data.items()})
        batch.data["filled"][past] = False
        return batch

    def episodes(self, first: int, last: int) -> dict[str, list[torch.Tensor]]:
        """Episodes `first` … `last - 1`, counted as `inserted` counts: {field: [[observations, ...] of each]}, and
        "lengths": [[last - first]]. On the CPU they share the replay's memory. Overwritten ones cannot be asked for."""
        places = (np.arange(first, last) % self.buffer_size).tolist()
        cut = {k: [v[p, : self.lengths[p]].cpu() for p in places] for k, v in self.data.items()}
        return {"lengths": [torch.from_numpy(self.lengths[places])], **cut}

    def put_back(self, first: int, episodes: dict[str, torch.Tensor]) -> None:
        """Store again what `episodes` gave, in the same places. {field: [observations of all, ...]}, one episode after
        the other, and "lengths"."""
        lengths = episodes["lengths"].tolist()
        ends = np.cumsum(lengths).tolist()
        for i, (length, end) in enumerate(zip(lengths, ends)):
            place = (first + i) % self.buffer_size
            self.lengths[place] = length
            for k, v in self.data.items():
                v[place, :length] = episodes[k][end - length : end].to(self.device)
                v[place, length:] = 0
        self._count(first + len(lengths))


def _kept(index: Any, size: int) -> Any:
    """An index of an axis of this size that keeps the axis: of a number, negative ones too, the slice of that place."""
    if not isinstance(index, (int, np.integer)):
        return index
    place = range(size)[index]  # IndexError where there is none
    return slice(place, place + 1)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: str | torch.device) -> Tensor:
    """Zeros. numpy leaves it to the system to make them where they are first used: an episode that ends early does
    not pay for the steps it might have had."""
    if torch.device(device).type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(shape, dtype=torch.empty(0, dtype=dtype).numpy().dtype))


def shapes(scheme: Scheme, groups: dict[str, int]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """{field: (shape without the episode and time axes, dtype)}."""
    return {
        k: (((groups[f["group"]],) if "group" in f else ()) + tuple(f["vshape"]), f.get("dtype", torch.float32))
        for k, f in scheme.items()
    }


def nbytes(scheme: Scheme, groups: dict[str, int], buffer_size: int, max_seq_length: int) -> int:
    """Bytes of a ReplayBuffer."""
    one_step = sum(int(np.prod(s)) * d.itemsize for s, d in shapes(scheme, groups).values()) + 1  # + filled
    return buffer_size * max_seq_length * one_step


def refuse_if_too_large(size: int, buffer_size: int, device: str | torch.device) -> None:
    """ConfigError, with the sum, when a buffer of `size` bytes cannot fit into the free memory."""
    refuse([of_episodes("buffer_size", size, {"buffer_size": buffer_size})], str(device), free_memory(str(device)))
