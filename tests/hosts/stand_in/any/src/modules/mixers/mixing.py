import torch
from torch import nn


class VDNMixer(nn.Module):
    def __init__(self, args):
        super().__init__()

    def forward(self, agent_qs, state):
        return agent_qs.sum(dim=2, keepdim=True)


class QMixer(nn.Module):
    def __init__(self, args):
        super().__init__()
        s, self.n, self.m, e = args.state_shape, args.n_agents, args.mixing_embed_dim, args.hypernet_embed
        self.hyper_w_1 = nn.Sequential(nn.Linear(s, e), nn.ReLU(), nn.Linear(e, self.m * self.n))
        self.hyper_w_final = nn.Sequential(nn.Linear(s, e), nn.ReLU(), nn.Linear(e, self.m))
        self.hyper_b_1 = nn.Linear(s, self.m)
        self.V = nn.Sequential(nn.Linear(s, self.m), nn.ReLU(), nn.Linear(self.m, 1))

    def forward(self, agent_qs, state):
        b, t, _ = agent_qs.shape
        state, agent_qs = state.reshape(b * t, -1), agent_qs.reshape(b * t, 1, self.n)
        w_1 = self.hyper_w_1(state).abs().view(-1, self.n, self.m)
        hidden = nn.functional.elu(torch.bmm(agent_qs, w_1) + self.hyper_b_1(state).unsqueeze(1))
        w_final = self.hyper_w_final(state).abs().unsqueeze(2)
        return (torch.bmm(hidden, w_final).squeeze(2) + self.V(state)).view(b, t, 1)
