import torch
from torch import nn


class QTranBase(nn.Module):
    """The stand-in's own: Q_jt reads the state and the sum of encodings, V_jt the state."""

    def __init__(self, args):
        super().__init__()
        assert args.qtran_arch == "qtran_paper" and args.network_size == "small"
        e, m, s = args.rnn_hidden_dim + args.n_actions, args.mixing_embed_dim, args.state_shape
        self.action_encoding = nn.Sequential(nn.Linear(e, e), nn.ReLU(), nn.Linear(e, e))
        self.Q = nn.Sequential(*self.layers(s + e, m))
        self.V = nn.Sequential(*self.layers(s, m))

    def layers(self, n_in, m):
        return nn.Linear(n_in, m), nn.ReLU(), nn.Linear(m, m), nn.ReLU(), nn.Linear(m, 1)

    def forward(self, state, hidden, onehot):
        encoded = self.action_encoding(torch.cat([hidden, onehot], dim=-1)).sum(dim=2)
        return self.Q(torch.cat([state, encoded], dim=-1)).squeeze(-1), self.V(state).squeeze(-1)
