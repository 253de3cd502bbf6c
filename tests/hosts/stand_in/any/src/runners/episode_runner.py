from envs import REGISTRY


class EpisodeRunner:
    def __init__(self, args, logger):
        self.env, self.logger, self.t_env = REGISTRY[args.env](**args.env_args), logger, 0

    def setup(self, new_batch, mac):
        self.new_batch, self.mac = new_batch, mac

    def observe(self, batch, t):
        env = self.env
        seen = {"state": [env.get_state()], "avail_actions": [env.get_avail_actions()], "obs": [env.get_obs()]}
        batch.update(seen, ts=t)

    def run(self, test_mode):
        batch, t, over, total = self.new_batch(), 0, False, 0.0
        self.env.reset()
        self.mac.init_hidden(1)
        while not over:
            self.observe(batch, t)
            actions = self.mac.select_actions(batch, t_ep=t, t_env=self.t_env, test_mode=test_mode)
            reward, over, info = self.env.step(actions[0])
            total += reward
            batch.update({"actions": actions, "reward": [(reward,)], "terminated": [(over,)]}, ts=t)
            t += 1
        self.observe(batch, t)
        if test_mode:
            self.logger.log_stat("test_return_mean", total, self.t_env)
        else:
            self.t_env += t
        return batch
