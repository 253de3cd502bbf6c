import copy

import torch
from modules.mixers.mixing import QMixer, VDNMixer


class QLearner:
    """VDN and QMIX."""

    def __init__(self, mac, scheme, logger, args):
        self.args, self.mac, self.last = args, mac, 0
        self.mixer = {"vdn": VDNMixer, "qmix": QMixer}[args.mixer](args)
        self.target_mac, self.target_mixer = copy.deepcopy(mac), copy.deepcopy(self.mixer)
        self.params = [*mac.parameters(), *self.mixer.parameters()]
        self.optimiser = torch.optim.RMSprop(self.params, args.lr, args.optim_alpha, args.optim_eps)

    def unroll(self, mac, batch):
        mac.init_hidden(batch.batch_size)
        return torch.stack([mac.forward(batch, t=t) for t in range(batch.max_seq_length)], dim=1)

    def train(self, batch, t_env, episode):
        over = batch["terminated"][:, :-1].float()
        mask = batch["filled"][:, :-1].float()
        mask[:, 1:] = mask[:, 1:] * (1 - over[:, :-1])
        q, impossible = self.unroll(self.mac, batch), batch["avail_actions"] == 0
        taken = q[:, :-1].gather(3, batch["actions"][:, :-1]).squeeze(3)
        with torch.no_grad():
            q_target = self.unroll(self.target_mac, batch)
            best = (q if self.args.double_q else q_target).masked_fill(impossible, -1e7).argmax(-1, keepdim=True)
            best_q = q_target.gather(3, best).squeeze(3)[:, 1:]
            next_q = self.target_mixer(best_q, batch["state"][:, 1:])
            y = batch["reward"][:, :-1] + self.args.gamma * (1 - over) * next_q
        error = self.mixer(taken, batch["state"][:, :-1]) - y
        loss = (mask * error**2).sum() / mask.sum()
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
