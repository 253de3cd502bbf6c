import torch
from torch import nn


class Agent(nn.Module):
    def __init__(self, width, args):
        super().__init__()
        self.width = h = args.hidden_dim if hasattr(args, "hidden_dim") else args.rnn_hidden_dim
        self.fc1, self.rnn, self.fc2 = nn.Linear(width, h), nn.GRUCell(h, h), nn.Linear(h, args.n_actions)

    def init_hidden(self):
        return torch.zeros(1, self.width)

    def forward(self, x, hidden):
        h = self.rnn(torch.relu(self.fc1(x)), hidden.reshape(-1, self.width))
        return self.fc2(h), h


class AgentForEach(nn.Module):
    """One network for each agent; hidden states [B, N, H]."""

    def __init__(self, width, args):
        super().__init__()
        self.agents = nn.ModuleList(Agent(width, args) for _ in range(args.n_agents))

    def init_hidden(self):
        return torch.cat([agent.init_hidden() for agent in self.agents])

    def forward(self, x, hidden):
        rows = x.view(-1, len(self.agents), x.shape[-1])
        outs = [agent(rows[:, i], hidden[:, i]) for i, agent in enumerate(self.agents)]
        q, h = (torch.stack(part, dim=1) for part in zip(*outs))
        return q, h


REGISTRY = {"rnn": Agent, "rnn_ns": AgentForEach}
