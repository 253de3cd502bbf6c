import torch

from modules.agents import REGISTRY as AGENTS


class BasicMAC:
    hidden_per_agent = False  # hidden states of a shared agent: [B, N, H], else [B*N, H]

    def __init__(self, scheme, groups, args):
        self.args, self.n_agents, self.hidden_states = args, args.n_agents, None
        width = scheme["obs"]["vshape"] + args.n_actions + args.n_agents * args.obs_agent_id
        self.agent = AGENTS[args.agent](width, args)

    def select_actions(self, batch, t_ep, t_env, bs=slice(None), test_mode=False):
        q, avail = self.forward(batch, t_ep), batch["avail_actions"][:, t_ep]
        left = max(0.0, 1 - t_env / self.args.epsilon_anneal_time)
        epsilon = self.args.epsilon_finish + left * (self.args.epsilon_start - self.args.epsilon_finish)
        greedy = q.masked_fill(avail == 0, -float("inf")).argmax(-1)
        chance = torch.distributions.Categorical(avail.float()).sample()
        explore = torch.rand(greedy.shape) < (0.0 if test_mode else epsilon)
        return torch.where(explore, chance, greedy)

    def forward(self, batch, t, test_mode=False):
        b = batch.batch_size
        last = batch["actions_onehot"][:, t - 1] if t else torch.zeros_like(batch["actions_onehot"][:, 0])
        parts = [batch["obs"][:, t], last]
        if self.args.obs_agent_id:
            parts.append(torch.eye(self.n_agents).expand(b, -1, -1))
        q, h = self.agent(torch.cat(parts, dim=-1).reshape(b * self.n_agents, -1), self.hidden_states)
        self.hidden_states = h.view(b, self.n_agents, -1) if self.hidden_per_agent else h
        return q.view(b, self.n_agents, -1)

    def init_hidden(self, batch_size):
        self.hidden_states = self.agent.init_hidden().unsqueeze(0).expand(batch_size, self.n_agents, -1)

    def parameters(self):
        return self.agent.parameters()

    def load_state(self, other):
        self.agent.load_state_dict(other.agent.state_dict())

    def save_models(self, path):
        torch.save(self.agent.state_dict(), f"{path}/agent.th")

    def load_models(self, path):
        self.agent.load_state_dict(torch.load(f"{path}/agent.th"))
