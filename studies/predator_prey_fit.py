"""Can an algorithm learn predator-prey at all? Learning from uniform positions and joint actions, with exact scores.

python studies/predator_prey_fit.py qtran_alt penalty=1.5 updates=10000 opt_loss=0.03 nopt_loss=0.03

No exploration and no replay: every update is one of `batch` transitions from positions and joint actions drawn
uniformly (5x5, two predators, one prey, all in sight). So what is missed here, exploration is not to blame for. Every
`every` updates two policies are scored exactly, by dynamic programming, as the mean return of 100 steps:

  agents   each takes the best of its own Q_i, as in play
  joint    the best of all 25 joint actions by Q_jt (or Q_tot), as one mind would

`joint` far below the optimum (studies/optima.py): the joint value is not learned. `agents` far below `joint`: it is,
but the agents' values do not follow it. Other words are keys of the algorithm, as after `with`.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
from optima import Transitions

from components.episode_buffer import EpisodeBatch, make_scheme
from controllers import mac_class
from learners import learner_class
from parts import readers
from utils import command
from utils.args import key, read
from utils.config import load, parse_overrides

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from components.episode_buffer import Scheme
    from learners import Learner


@dataclass(frozen=True)
class Fit:
    """The words that are no keys of the algorithm."""

    updates: int = key("how many", low=0)
    every: int = key("updates from one score to the next", low=1)
    batch: int = key("transitions in an update", low=1)
    penalty: float = key("of the game", low=0)
    seed: int = key("fixes everything random", low=0, high=2**32 - 1)


OWN = Fit(updates=10_000, every=2_500, batch=512, penalty=1.5, seed=1001)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    options = parser().parse_args(argv)
    return command.status_of(fit, options.algorithm, *options.words)


def parser() -> argparse.ArgumentParser:
    description, _, details = (__doc__ or "").partition("\n")
    details += "\nexit status: 0 done; 2 bad input; 130 interrupted (Ctrl-C)\n"
    p = command.parser("studies/predator_prey_fit.py", description, details.strip())
    p.add_argument("algorithm", metavar="ALGORITHM", help="such as qtran_alt")
    defaults = " ".join(f"{name}={value}" for name, value in asdict(OWN).items())
    p.add_argument("words", metavar="KEY=VALUE", nargs="*", help=f"own words and their defaults: {defaults}")
    return p


def fit(algorithm: str, *words: str) -> int:
    given = parse_overrides(list(words))
    own = read(Fit, SimpleNamespace(**{name: given.pop(name, value) for name, value in asdict(OWN).items()}))
    torch.set_num_threads(1)
    torch.manual_seed(own.seed)
    rng = np.random.default_rng(own.seed)
    values = load(algorithm, "predator_prey", given | {"seed": own.seed}, readers).values
    game = Transitions(map_size=5, encoding=values["env_args"]["encoding"])
    learner, scheme = make_learner(values, game)
    for update in range(own.updates + 1):
        if update % own.every == 0:
            scores = [
                f"{name} {game.policy_return(u, own.penalty, 100):.2f}" for name, u in policies(learner, scheme, game)
            ]
            print(f"{algorithm} {' '.join(words)}: {update} updates: {', '.join(scores)}", flush=True)
        if update < own.updates:
            learner.train(draw(game, scheme, own, rng), update, update)
    return 0


def make_learner(values: dict[str, Any], game: Transitions) -> tuple[Any, Scheme]:
    info = game.env.env_info
    sizes = {name: getattr(info, name) for name in ("n_agents", "n_actions", "obs_shape", "state_shape")}
    args = SimpleNamespace(**values, **sizes, device="cpu")
    scheme = make_scheme(info, args.common_reward)
    mac = mac_class(args.mac)(scheme, {"agents": 2}, args)
    return learner_class(args.learner)(mac, scheme, SimpleNamespace(log_stat=lambda *_: None), args), scheme


def draw(game: Transitions, scheme: Scheme, own: Fit, rng: np.random.Generator) -> EpisodeBatch:
    """An EpisodeBatch of `batch` episodes of one transition."""
    n = own.batch
    s, u, move = rng.integers(len(game.after), size=n), rng.integers(25, size=n), rng.integers(5, size=n)
    beside, after = game.beside[s, u, move], game.after[s, u, move]
    after = np.where(beside == 2, game.respawned[after, rng.integers(game.respawned.shape[1], size=n)], after)
    batch = EpisodeBatch(scheme, {"agents": 2}, n, 2)
    data = batch.arrays()
    for t, at in enumerate((s, after)):
        data["obs"][:, t], data["state"][:, t] = game.shown.obs[at], game.shown.state[at]
    data["actions"][:, 0, :, 0] = np.stack(np.divmod(u, 5), axis=-1)
    data["reward"][:, 0, 0] = (beside == 2) - own.penalty * (beside == 1)
    data["avail_actions"][:] = data["filled"][:] = True
    return batch


def policies(learner: Learner, scheme: Scheme, game: Transitions) -> list[tuple[str, NDArray[np.int64]]]:
    """[(name, joint actions [S])]"""
    batch = EpisodeBatch(scheme, {"agents": 2}, len(game.after), 2)
    data = batch.arrays()
    data["obs"][:, 0], data["state"][:, 0] = game.shown.obs, game.shown.state
    found, values = [], []
    for u in range(25):
        data["actions"][:, 0, :, 0] = np.divmod(u, 5)
        values.append(learner.values(batch))
    q = values[0]["q"][:, 0].numpy()  # [S, N, A]
    found.append(("agents", q.argmax(axis=-1) @ (5, 1)))
    if "q_jt" in values[0]:
        found.append(("joint", np.stack([v["q_jt"][:, 0, 0].numpy() for v in values], axis=-1).argmax(axis=-1)))
    return found


if __name__ == "__main__":
    sys.exit(main())
