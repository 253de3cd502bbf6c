import numpy as np
import torch


class EpisodeBatch:
    def __init__(self, scheme, groups, batch_size, max_seq_length, data=None, preprocess=None, device="cpu"):
        self.scheme, self.groups, self.preprocess, self.device = dict(scheme), groups, preprocess or {}, device
        self.batch_size, self.max_seq_length = batch_size, max_seq_length
        for new, (transform,) in self.preprocess.values():
            self.scheme[new] = {"vshape": (transform.out_dim,), "group": "agents"}
        self.scheme["filled"] = {"vshape": (1,), "dtype": torch.long}
        self.data = data or {
            k: torch.zeros(batch_size, max_seq_length, *self.shape(v), dtype=v.get("dtype", torch.float32))
            for k, v in self.scheme.items()
        }

    def shape(self, field):
        v = field["vshape"]
        return ((self.groups["agents"],) if "group" in field else ()) + ((v,) if isinstance(v, int) else v)

    def update(self, data, bs=slice(None), ts=slice(None), mark_filled=True):
        for k, v in data.items():
            target = self.data[k]
            v = torch.as_tensor(np.array(v) if isinstance(v, list) else v, dtype=target.dtype)
            target[bs, ts] = v.reshape(target[bs, ts].shape)
            if k in self.preprocess:
                new, (transform,) = self.preprocess[k]
                self.data[new][bs, ts] = transform.transform(target[bs, ts])
        if mark_filled:
            self.data["filled"][bs, ts] = 1

    def __getitem__(self, item):
        if isinstance(item, str):
            return self.data[item]
        data = {k: v[item] for k, v in self.data.items()}
        b, t = data["filled"].shape[:2]
        return EpisodeBatch(self.scheme, self.groups, b, t, data=data)


class ReplayBuffer(EpisodeBatch):
    def __init__(self, scheme, groups, buffer_size, max_seq_length, preprocess=None):
        super().__init__(scheme, groups, buffer_size, max_seq_length, preprocess=preprocess)
        self.size, self.seen = buffer_size, 0

    def insert_episode_batch(self, batch):
        for k, v in batch.data.items():
            self.data[k][self.seen % self.size] = v[0]
        self.seen += 1

    def can_sample(self, n):
        return self.seen >= n

    def sample(self, n):
        return self[torch.randperm(min(self.seen, self.size))[:n], :]
