import torch


class OneHot:
    def __init__(self, out_dim):
        self.out_dim = out_dim

    def transform(self, x):
        return torch.nn.functional.one_hot(x.squeeze(-1).long(), self.out_dim).float()
