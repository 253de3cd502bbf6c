import copy

import torch

from modules.mixers.qtran import QTranBase


class QLearner:
    """The stand-in's own QTRAN-base. Its hidden states must be [B*N, H]."""

    def __init__(self, mac, scheme, logger, args):
        self.args, self.mac, self.mixer, self.last = args, mac, QTranBase(args), 0
        self.target_mac, self.target_mixer = copy.deepcopy(mac), copy.deepcopy(self.mixer)
        self.params = [*mac.parameters(), *self.mixer.parameters()]
        self.optimiser = torch.optim.RMSprop(self.params, args.lr, args.optim_alpha, args.optim_eps)

    def unroll(self, mac, batch):
        mac.init_hidden(batch.batch_size)
        q, h = [], []
        for t in range(batch.max_seq_length):
            q.append(mac.forward(batch, t=t))
            assert mac.hidden_states.dim() == 2
            h.append(mac.hidden_states.view(batch.batch_size, mac.n_agents, -1))
        return torch.stack(q, 1), torch.stack(h, 1)

    def best(self, q, avail):
        """One-hot of each agent's greedy action."""
        return torch.nn.functional.one_hot(q.masked_fill(~avail, -1e7).argmax(-1), q.shape[-1]).float()

    def train(self, batch, t_env, episode):
        over = batch["terminated"][:, :-1, 0].float()
        mask = batch["filled"][:, :-1, 0].float()
        mask[:, 1:] = mask[:, 1:] * (1 - over[:, :-1])
        avail, onehot, state = batch["avail_actions"] > 0, batch["actions_onehot"][:, :-1], batch["state"]
        q, h = self.unroll(self.mac, batch)
        with torch.no_grad():
            q_target, h_target = self.unroll(self.target_mac, batch)
            greedy = self.best(q if self.args.double_q else q_target, avail)
            next_q, _ = self.target_mixer(state[:, 1:], h_target[:, 1:], greedy[:, 1:])
            y = batch["reward"][:, :-1, 0] + self.args.gamma * (1 - over) * next_q
            greedy = self.best(q, avail)[:, :-1]
        joint, v = self.mixer(state[:, :-1], h[:, :-1], onehot)
        joint_best, _ = self.mixer(state[:, :-1], h[:, :-1], greedy)
        td = joint - y
        opt = (q[:, :-1] * greedy).sum((2, 3)) - joint_best.detach() + v
        nopt = ((q[:, :-1] * onehot).sum((2, 3)) - joint.detach() + v).clamp(max=0)
        losses = [(mask * x**2).sum() / mask.sum() for x in (td, opt, nopt)]
        loss = losses[0] + self.args.opt_loss * losses[1] + self.args.nopt_min_loss * losses[2]
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.params, self.args.grad_norm_clip)
        self.optimiser.step()
        if episode - self.last >= self.args.target_update_interval:
            self.target_mac.load_state(self.mac)
            self.target_mixer.load_state_dict(self.mixer.state_dict())
            self.last = episode

    def save_models(self, path):
        self.mac.save_models(path)
