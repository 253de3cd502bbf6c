"""What a run is made of: configuration → environment, controller, learner, runner, replay."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

import envs
from components.action_selectors import selector_class
from components.episode_buffer import ReplayBuffer, make_scheme, nbytes
from controllers import mac_class
from envs.vector import EnvInfo
from learners import learner_class
from learners.value_learner import ValueLearner
from modules.agents import agent_class
from modules.agents.recurrence import choose
from modules.mixers import mixer_class
from runners import runner_class
from runners.ray_env import RayEnv
from training import Training
from utils.args import ConfigError, declared, key, read
from utils.checkpoint import find_checkpoint
from utils.config import CHOICES
from utils.disk import NAMES_A_FOLDER, names_a_folder
from utils.film import FORMATS, check_format
from utils.identity import flat
from utils.logging import Logger
from utils.memory import free_memory, keep_freed_memory
from utils.memory_needs import Part, of_episodes, refuse_if_too_large
from utils.messages import shown
from utils.nonfinite import Tolerance
from utils.resume_state import StateFolder
from utils.rundir import check_same_algorithm
from utils.seeding import seed_weights
from utils.yaml_file import read_yaml

COPIES = 5  # of a network while it learns: online, target, gradient, and Adam's two moments
ACTING = 20  # bytes for each action of a step: its value, and two random numbers


class Experiment:
    """The keys that say what is run, and on what."""

    @dataclass(frozen=True)
    class Config:
        name: str = key("name of the algorithm in results and figures")
        env: str = key("environment")
        preset: str | None = key("which of an algorithm's presets the environment calls for; null: its own keys")
        runner: str = key(
            "who plays the episodes; `episode` and `parallel` (EPyMARL's names) mean the same; ray: actors on any node "
            "of a Ray cluster, as with env_workers=True to the bit"
        )
        ray_address: str | None = key(
            "with runner=ray: host:port of the cluster, or auto for the one this machine is in; null: a Ray on this "
            "machine, started and stopped by the run"
        )
        ray_actors: int = key(
            "with runner=ray: actors, which share the environments and take a CPU each of the cluster; at most one for "
            "each environment", low=1, high=1024,
        )  # fmt: skip
        mac: str = key("controller")
        learner: str = key("learner")
        mixer: str | None = key("what makes a joint value from the agents' values; null: nothing (IQL)")
        seed: int = key("fixes everything random; null: chosen and printed", low=0, high=2**32 - 1)
        env_workers: bool = key(
            "one process for each environment; False: arrays in this process, where it can. Each of the two repeats "
            "itself, but they draw different numbers from the same seed"
        )
        use_cuda: bool = key("learn on the GPU, where there is one")
        buffer_cpu_only: bool = key("keep the replay in main memory even when learning on the GPU")
        num_threads: int = key("CPU threads of torch; one is fastest for small networks", low=1, high=1024)
        checkpoint_path: str = key("folder of checkpoints to start from; empty: start anew")
        load_step: int = key(
            "which of them: the nearest; 0: the last; best: the one that tested best",
            unit="environment steps", low=0, words=("best",),
        )  # fmt: skip
        init_from: str = key(
            "run directory or checkpoint whose weights a new run starts with, at step 0; empty: none. Its optimiser, "
            "schedules and replay are not taken"
        )
        init_parts: str = key("which weights `init_from` takes", choices=("agent", "all"))
        evaluate: bool = key("play `test_nepisode` test episodes with the loaded checkpoint, and stop")
        render_format: str = key("of the animation of `render`; mp4 needs ffmpeg", choices=FORMATS)
        save_replay: bool = key("after `evaluate`, save the environment's replay")
        modules_path: str | None = key(
            "folder of your own modules, for classes named MODULE:CLASS; null: the working directory"
        )
        label: str = key("free text, kept with the results")
        hypergroup: str | None = key("free text, kept with the results (EPyMARL's search sets it)")
        repeat_id: int = key("number of a repetition, kept with the results")

        def problems(self) -> Iterator[str]:
            """What is wrong with these keys."""
            if not names_a_folder(self.name):
                yield f"name = {shown(self.name)} names a folder: {NAMES_A_FOLDER}"
            if self.init_from and (self.checkpoint_path or self.evaluate):
                yield (
                    "init_from starts a new run; checkpoint_path goes on with an old one or, with evaluate=True, plays "
                    "it: give one of the two"
                )


def readers(values: dict[str, Any]) -> tuple[list[Any], list[tuple[str, str]]]:
    """The classes that will read the configuration `values`, and [(key, problem)] of unknown choices."""
    find_each: tuple[Callable[[str], Any], ...] = (  # in the order of CHOICES
        envs.env_class, runner_class, mac_class, agent_class, selector_class, learner_class, mixer_class,
    )  # fmt: skip
    classes, problems = [Experiment, Training, Logger, StateFolder], []
    for name, find in zip(CHOICES, find_each, strict=True):
        if values.get(name) is not None:
            try:
                classes.append(find(str(values[name])))
            except ConfigError as error:
                problems.append((name, str(error)))
    return [cls for cls in classes if hasattr(cls, "Config")], problems


class Parts:
    """All that a run is made of. Building it finds bad input before anything is written.

    start: load the weights of `checkpoint_path`, if any; False where a state will be loaded instead. kernels: what that
    state was made with, which `kernels=auto` keeps to.
    """

    def __init__(self, values: dict[str, Any], logger: Logger, start: bool = True, kernels: str | None = None) -> None:
        self.start = start
        self.values, self.logger = values, logger
        self.args = args = SimpleNamespace(**values)
        self.experiment = read(Experiment.Config, args)
        self.training = read(Training.Config, args)
        self.resuming = read(StateFolder.Config, args)
        if self.training.learning_starts > self.training.t_max and not self.experiment.evaluate:
            logger.console_logger.warning(
                f"learning_starts = {self.training.learning_starts}: nothing is learned before "
                f"t_max = {self.training.t_max} (steps); give a smaller learning_starts"
            )
        for name in ("render", "save_replay"):
            if getattr(args, name) and not self.experiment.evaluate:
                logger.console_logger.warning(f"{name}=True does nothing without evaluate=True and a checkpoint_path")
        if self.experiment.evaluate and args.render:
            check_format(self.experiment.render_format)
        torch.set_num_threads(self.experiment.num_threads)
        keep_freed_memory()
        args.device = self.device = self._device()
        args.game_seed = envs.game_seed(values["env_args"], self.experiment.seed)
        self.env = self._env(args.game_seed)
        try:
            args.kernels = self.kernels = self._kernels(args, kernels)
            self._build(args)
        except BaseException:
            self.env.close()
            raise

    def _env(self, seed: int | None) -> envs.VectorEnv:
        """The game. seed: its own, where it has one."""
        e, env_args, n_envs = self.experiment, self.values["env_args"], self.training.batch_size_run
        if e.runner != "ray":
            draw = e.evaluate and self.args.render
            return envs.make(e.env, env_args, n_envs, seed, workers=e.env_workers, draw=draw)
        for name in ("render", "save_replay"):
            if getattr(self.args, name):
                raise ConfigError(f"{name}=True: with runner=ray actors play, which cannot; give runner=parallel")
        cls, config = envs.check_workers(e.env, env_args, n_envs, "runner=ray", here=e.ray_address is None)
        return RayEnv(cls, config, n_envs, seed, e.ray_address, e.ray_actors)

    def _build(self, args: SimpleNamespace) -> None:
        info = self.env.env_info
        if self.training.t_max < info.episode_limit:
            names = [name for name in ("episode_limit", "time_limit") if name in self.values["env_args"]]
            steps = f"{info.episode_limit} steps{''.join(f', env_args.{name}' for name in names)}"
            raise ConfigError(f"t_max = {self.training.t_max} is shorter than one episode ({steps})")
        if self.env.common_reward and not args.common_reward:
            raise ConfigError(
                f"common_reward=False: {self.experiment.env} gives one team reward; give common_reward=True"
            )
        memory = [name for name in ("use_rnn", "obs_last_action") if getattr(args, name, False)]
        if self.training.batch_steps and memory:
            raise ConfigError(
                f"batch_steps = {self.training.batch_steps} cuts episodes into stretches, which agents that look back "
                f"cannot learn from: give {memory[0]}=False, or batch_steps=null for whole episodes"
            )
        for note in self.env.notes:
            self.logger.console_logger.info(note)
        with_sizes(args, info)
        self.scheme, self.groups = make_scheme(info, args.common_reward), {"agents": info.n_agents}
        self._refuse_what_does_not_fit(args)
        seed_weights(self.experiment.seed)
        self.mac = mac_class(args.mac)(self.scheme, self.groups, args)
        self.learner = learner_class(args.learner)(self.mac, self.scheme, self.logger, args)
        self._refuse_what_no_state_holds()
        if self.device == "cuda":  # before the runner is made, which may keep hidden states on the agents' device
            self.learner.cuda()
        self.runner = runner_class(args.runner, self.env.in_processes)(
            self.env, self.mac, self.scheme, self.groups, self.logger, args
        )
        if self.experiment.checkpoint_path and self.start:
            self._load()
        elif self.experiment.init_from and self.start:
            self._load_initial_weights()
        elif self.experiment.evaluate:
            raise ConfigError("evaluate=True needs checkpoint_path=FOLDER: what to evaluate")
        if self.experiment.evaluate and self.experiment.save_replay and not self._saves_replays():
            raise ConfigError(f"save_replay=True: {self.experiment.env} cannot save replays")
        self.updates = Tolerance("update", self.runner.config.on_nonfinite == "skip", self.logger.console_logger)
        self.buffer = None if self.experiment.evaluate else self._replay()

    def _refuse_what_no_state_holds(self) -> None:
        """ConfigError where a learner of the user's own keeps what a resumed run would not have."""
        names = self.learner.not_in_state() if isinstance(self.learner, ValueLearner) else []
        if names:
            raise ConfigError(
                f"{type(self.learner).__name__}: a resumed run would not have its {', '.join(names)}; return networks "
                "from make_networks(args), and give what else learns a state_dict and a load_state_dict"
            )

    def _refuse_what_does_not_fit(self, args: SimpleNamespace) -> None:
        """Say what the networks, the game and batches take; ConfigError, with the sum, where a device has no room for
        all that is still to be made on it."""
        e, c, log = self.experiment, self.training, self.logger.console_logger
        needed = Needed.of(args, self.env.env_info, args.common_reward, self.device)
        needed.refuse_what_does_not_fit()
        networks = needed.networks[1]
        log.info(f"{networks.what}, {networks.nbytes / 2**30:.3f} GiB{networks.note} on {self.device}")
        game = envs.need(e.env, self.values["env_args"], c.batch_size_run, e.env_workers or e.runner == "ray")
        parts = [("cpu", game), *needed.batches] if game.nbytes else needed.batches  # of some games it is not known
        log.info("; ".join(f"{part.what}, {part.nbytes / 2**30:.3f} GiB on {device}" for device, part in parts))

    def _device(self) -> str:
        if self.experiment.use_cuda and not torch.cuda.is_available():
            self.logger.console_logger.warning("use_cuda=True but torch sees no GPU: running on the CPU")
        return "cuda" if self.experiment.use_cuda and torch.cuda.is_available() else "cpu"

    def _kernels(self, args: SimpleNamespace, before: str | None) -> str:
        """ "fast" or "plain", for recurrent agents, which alone have a choice, with a line that says so.

        args.kernels: of the configuration. before: what a resumed run was made with.
        """
        log = self.logger.console_logger
        wanted = getattr(args, "kernels", "plain")
        if not getattr(args, "use_rnn", False) or self.device != "cpu" or self.experiment.evaluate:
            if wanted == "fast" and not self.experiment.evaluate:  # what plays a trained run learns nothing
                raise ConfigError(
                    "kernels=fast is for learning on a CPU with agents that have a memory (use_rnn=True); "
                    "give kernels=auto"
                )
            return "plain"
        kind, why = ("plain", "as before") if (wanted, before) == ("auto", "plain") else choose(wanted)
        log.info(f"kernels: {kind} ({why})")
        return kind

    def _load(self) -> None:
        folder, step = find_checkpoint(self.experiment.checkpoint_path, self.experiment.load_step)
        check_same_algorithm(folder, self.values)
        if step >= self.training.t_max and not self.experiment.evaluate:
            raise ConfigError(
                f"t_max = {self.training.t_max}: the checkpoint {folder} is already at or beyond t_max; "
                "give a larger t_max to train on, or evaluate=True"
            )
        other_keys = self._other_keys(folder)
        try:
            self.learner.load_models(folder)
        except ConfigError as error:
            raise ConfigError(f"{error}{other_keys}") from error
        self.runner.t_env = step
        self.logger.console_logger.info(f"loaded {folder}")
        if other_keys:
            self.logger.console_logger.warning(f"checkpoint_path = {self.experiment.checkpoint_path}:{other_keys}")

    def _load_initial_weights(self) -> None:
        """The weights of `init_from` for a new run."""
        given, every = self.experiment.init_from, self.experiment.init_parts == "all"
        folder = os.path.expanduser(given)
        if not os.path.isfile(os.path.join(folder, "agent.th")):
            folder, _ = find_checkpoint(given, says="init_from")
        if every:
            check_same_algorithm(folder, self.values)
        other_keys = self._other_keys(folder)
        try:
            self.learner.load_weights(folder, None if every else {"agent"})
        except ConfigError as error:
            raise ConfigError(f"{error}{other_keys}") from error
        self.logger.console_logger.info(f"init_from: {folder}, {self.experiment.init_parts}")
        if other_keys:
            self.logger.console_logger.warning(f"init_from = {given}:{other_keys}")

    def _other_keys(self, folder: str) -> str:
        """Which keys of the networks and the game the run of a checkpoint had other values of, as far as it says."""
        try:
            run = Path(folder).absolute().parent.parent  # a folder at the root has no parents[1]
            theirs, ours = flat(read_yaml(run / "config.yaml")), flat(self.values)
        except (ConfigError, AttributeError):
            return ""
        names = {"env", "optimizer", *(name for name in ours if name.startswith("env_args."))}
        for config in _configs([agent_class(self.args.agent), *_mixers(self.args)]):
            names |= config.keys()
        differences = [
            f"{name} = {shown(theirs[name])}, here {shown(ours[name])}"
            for name in sorted(names & theirs.keys() & ours.keys())
            if theirs[name] != ours[name]
        ]
        return f"\n  its run has other keys: {'; '.join(differences[:6])}" if differences else ""

    def _saves_replays(self) -> bool:
        return envs.env_class(self.experiment.env).save_replay is not envs.VectorEnv.save_replay

    def _replay(self) -> ReplayBuffer:
        size, device = nbytes(*self._replay_shape()), replay_device(self.experiment, self.device)
        self.logger.console_logger.info(
            f"replay: {self.training.buffer_size} episodes, {size / 2**30:.3f} GiB on {device}"
        )
        return ReplayBuffer(*self._replay_shape(), device=device, seed=self.experiment.seed)

    def _replay_shape(self) -> tuple:
        return self.scheme, self.groups, self.training.buffer_size, self.env.env_info.episode_limit + 1


def with_sizes(args: SimpleNamespace, info: EnvInfo) -> SimpleNamespace:
    """`args`, which gets the sizes that networks are built by: those of the game, and that of the agents' hidden state,
    which QTRAN's joint value reads."""
    args.n_agents, args.n_actions, args.episode_limit = info.n_agents, info.n_actions, info.episode_limit
    args.obs_shape, args.state_shape = info.obs_shape, info.state_shape
    args.obs_dims = info.obs_dims or (info.obs_shape,)
    with torch.device("meta"):
        args.hidden_shape = agent_class(args.agent)(args).init_hidden(1, args.n_agents).shape[-1]
    return args


def replay_device(experiment: Experiment.Config, device: str) -> str:
    return "cpu" if experiment.buffer_cpu_only else device


@dataclass(frozen=True)
class Needed:
    """The memory that a run takes beside its game: (device, what is made there) each.

    batches: a round, a minibatch, and an update, which holds at least its copy of the minibatch and what the networks
    make of it. replay: None where nothing is learned.
    """

    networks: tuple[str, Part]
    batches: list[tuple[str, Part]]
    replay: tuple[str, Part] | None

    @classmethod
    def of(cls, args: SimpleNamespace, info: EnvInfo, common_reward: bool, device: str) -> "Needed":
        """args: with the sizes of the game. device: of the networks."""
        e, c = read(Experiment.Config, args), read(Training.Config, args)
        scheme, groups = make_scheme(info, common_reward), {"agents": info.n_agents}
        networks, width = _networks(args)
        played = nbytes(scheme, groups, c.batch_size_run, info.episode_limit + 3)  # with what the game shows
        played += ACTING * c.batch_size_run * info.n_agents * info.n_actions
        rounds, keys = 1 + getattr(args, "max_staleness", 0), {"batch_size_run": c.batch_size_run}
        if rounds > 1:  # are played at the same time
            keys["max_staleness"] = rounds - 1
        batches = [("cpu", of_episodes("round" if rounds == 1 else f"{rounds} rounds", rounds * played, keys))]
        if e.evaluate:
            return cls((device, networks), batches, None)
        keys, steps, place = {"batch_size": c.batch_size}, c.batch_steps or info.episode_limit, replay_device(e, device)
        if c.batch_steps:
            keys["batch_steps"] = c.batch_steps
        sampled = nbytes(scheme, groups, c.batch_size, steps + 1)
        computed = sampled + 4 * width * c.batch_size * steps
        batches.append((place, of_episodes("minibatch", sampled, keys)))
        batches.append((device, of_episodes("update", computed, keys)))
        stored = nbytes(scheme, groups, c.buffer_size, info.episode_limit + 1)
        return cls((device, networks), batches, (place, of_episodes("replay", stored, {"buffer_size": c.buffer_size})))

    def on(self) -> dict[str, list[Part]]:
        """{device: what is made there}."""
        places: dict[str, list[Part]] = {}
        for device, part in [self.networks, *self.batches, *([self.replay] if self.replay else [])]:
            places.setdefault(device, []).append(part)
        return places

    def refuse_what_does_not_fit(self) -> None:
        """ConfigError, with the sum, where a device has no room for all that is made on it."""
        for device, parts in self.on().items():
            refuse_if_too_large(parts, device, free_memory(device))


def _mixers(args: SimpleNamespace) -> list[Callable[[SimpleNamespace], torch.nn.Module]]:
    """What makes the mixer, where there is one."""
    return [] if args.mixer is None else [mixer_class(args.mixer)]


def _configs(classes: Iterable[Any]) -> list[dict[str, tuple[Any, Mapping[str, Any]]]]:
    """What those of the classes declare that read hyperparameters."""
    return [declared(cls.Config) for cls in classes if hasattr(cls, "Config")]


def _networks(args: SimpleNamespace) -> tuple[Part, int]:
    """What the networks take while they learn, and how many numbers an update makes of a time step, at least.

    They are built without memory, so that none is too large for it.
    """
    classes: list[Callable[[SimpleNamespace], torch.nn.Module]] = [agent_class(args.agent), *_mixers(args)]
    with torch.device("meta"):
        networks = [cls(args) for cls in classes]
        more = getattr(learner_class(args.learner), "make_networks", None)
        networks += more(args).values() if more else []
    learned = sum(p.numel() for network in networks for p in network.parameters())
    names = [name for config in _configs(classes) for name, (type_, _) in config.items() if type_ is int]
    keys = {name: getattr(args, name) for name in (*names, "n_agents", "n_actions", "obs_shape", "state_shape")}
    part = Part(f"networks: {learned:,} parameters", 4 * COPIES * learned, keys, " with targets and optimiser")
    hidden = getattr(args, "hidden_dim", 0) * (6 if getattr(args, "use_rnn", False) else 2)  # a GRU keeps its gates
    width = args.n_agents * (hidden + 2 * args.n_actions)
    layers = [layer for mixer in networks[1:] for layer in mixer.modules() if isinstance(layer, torch.nn.Linear)]
    return part, width + sum(layer.out_features for layer in layers)
