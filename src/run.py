"""Wires one experiment: config → environment → replay, controller, learner, runner → training → results."""

import logging
import signal
from dataclasses import dataclass
from logging.handlers import MemoryHandler
from types import SimpleNamespace

import torch
from rich.console import Console

import envs
import tables
from components.action_selectors import selector_class
from components.episode_buffer import ReplayBuffer, make_scheme, nbytes
from controllers import mac_class
from learners import learner_class
from modules.agents import agent_class
from modules.mixers import mixer_class
from runners import runner_class
from training import Training, test, train
from utils.args import ConfigError, TrainingError, key, read
from utils.checkpoint import find_checkpoint
from utils.config import import_sacred, task_name
from utils.logging import Logger, brief, get_logger, unwritable
from utils.progress import TrainingProgress
from utils.rundir import RunDirectory, check_same_algorithm
from utils.seeding import seed_weights, streams
from utils.sinks import JsonlSink, SacredSink, TensorBoardSink, WandbSink


class Experiment:
    """The keys that say what is run, and on what."""

    @dataclass(frozen=True)
    class Config:
        name: str = key("name of the algorithm in results and figures")
        env: str = key("environment")
        preset: str | None = key("which of an algorithm's presets the environment calls for; null: its own keys")
        runner: str = key("who plays the episodes; `episode` and `parallel` (EPyMARL's names) mean the same")
        mac: str = key("controller")
        learner: str = key("learner")
        mixer: str | None = key("what makes a joint value from the agents' values; null: nothing (IQL)")
        seed: int = key("fixes everything random; null: chosen and printed", low=0, high=2**32 - 1)
        env_workers: bool = key("one process for each environment; False: arrays in this process, where it can")
        use_cuda: bool = key("learn on the GPU, where there is one")
        buffer_cpu_only: bool = key("keep the replay in main memory even when learning on the GPU")
        num_threads: int = key("CPU threads of torch; one is fastest for small networks", low=1)
        checkpoint_path: str = key("folder of checkpoints to start from; empty: start anew")
        load_step: int = key("which of them: the nearest; 0: the last", unit="environment steps", low=0)
        evaluate: bool = key("play `test_nepisode` test episodes with the loaded checkpoint, and stop")
        save_replay: bool = key("after `evaluate`, save the environment's replay")
        label: str = key("free text, kept with the results")
        hypergroup: str | None = key("free text, kept with the results (EPyMARL's search sets it)")
        repeat_id: int = key("number of a repetition, kept with the results")


def readers(values):
    """The classes that will read the configuration `values`, and [(key, problem)] of unknown choices."""
    choices = (
        ("env", envs.env_class),
        ("runner", runner_class),
        ("mac", mac_class),
        ("agent", agent_class),
        ("action_selector", selector_class),
        ("learner", learner_class),
        ("mixer", mixer_class),
    )
    classes, problems = [Experiment, Training, Logger], []
    for name, find in choices:
        if values.get(name) is not None:
            try:
                classes.append(find(str(values[name])))
            except ConfigError as error:
                problems.append((name, str(error)))
    return [cls for cls in classes if hasattr(cls, "Config")], problems


class Parts:
    """All that a run is made of. Building it finds bad input before anything is written."""

    def __init__(self, values, logger):
        self.values, self.logger = values, logger
        self.args = args = SimpleNamespace(**values)
        self.experiment = read(Experiment.Config, args)
        self.training = read(Training.Config, args)
        torch.set_num_threads(self.experiment.num_threads)
        args.device = self.device = self._device()
        seeds = streams(self.experiment.seed)
        args.action_seed = seeds["exploration"]
        self.env = envs.make(
            self.experiment.env, values["env_args"], self.training.batch_size_run, seeds["environment"],
            workers=self.experiment.env_workers,
        )  # fmt: skip
        try:
            self._build(args, seeds)
        except BaseException:
            self.env.close()
            raise

    def _build(self, args, seeds):
        info = self.env.env_info
        if self.training.t_max < info.episode_limit:
            raise ConfigError(f"t_max = {self.training.t_max} is shorter than one episode ({info.episode_limit} steps)")
        if self.env.common_reward and not args.common_reward:
            raise ConfigError(
                f"common_reward=False: {self.experiment.env} pays one team reward; give common_reward=True"
            )
        memory = [name for name in ("use_rnn", "obs_last_action") if getattr(args, name, False)]
        if self.training.batch_steps and memory:
            raise ConfigError(
                f"batch_steps = {self.training.batch_steps} cuts episodes into stretches, which agents that look back "
                f"cannot learn from: give {memory[0]}=False, or batch_steps=null for whole episodes"
            )
        args.n_agents, args.n_actions, args.episode_limit = info.n_agents, info.n_actions, info.episode_limit
        args.obs_shape, args.state_shape = info.obs_shape, info.state_shape
        self.scheme, self.groups = make_scheme(info, args.common_reward), {"agents": info.n_agents}
        seed_weights(seeds["weights"])
        self.mac = mac_class(args.mac)(self.scheme, self.groups, args)
        self.learner = learner_class(args.learner)(self.mac, self.scheme, self.logger, args)
        self.runner = runner_class(args.runner)(self.env, self.mac, self.scheme, self.groups, self.logger, args)
        if self.device == "cuda":
            self.learner.cuda()
        if self.experiment.checkpoint_path:
            self._load()
        elif self.experiment.evaluate:
            raise ConfigError("evaluate=True needs checkpoint_path=FOLDER: what to evaluate")
        if self.experiment.evaluate and self.experiment.save_replay and not self._saves_replays():
            raise ConfigError(f"save_replay=True: {self.experiment.env} cannot save replays")
        self.buffer = None if self.experiment.evaluate else self._replay(seeds["replay"])

    def _device(self):
        if self.experiment.use_cuda and not torch.cuda.is_available():
            self.logger.console_logger.warning("use_cuda=True but torch sees no GPU: running on the CPU")
        return "cuda" if self.experiment.use_cuda and torch.cuda.is_available() else "cpu"

    def _load(self):
        folder, step = find_checkpoint(self.experiment.checkpoint_path, self.experiment.load_step)
        check_same_algorithm(folder, self.values)
        if step >= self.training.t_max and not self.experiment.evaluate:
            raise ConfigError(
                f"t_max = {self.training.t_max}: the checkpoint {folder} is that far already; "
                "give a larger t_max to train on, or evaluate=True"
            )
        self.learner.load_models(folder)
        self.runner.t_env = step
        self.logger.console_logger.info(f"loaded {folder}")

    def _saves_replays(self):
        return envs.env_class(self.experiment.env).save_replay is not envs.VectorEnv.save_replay

    def _replay(self, seed):
        device = "cpu" if self.experiment.buffer_cpu_only else self.device
        shape = (self.scheme, self.groups, self.training.buffer_size, self.env.env_info.episode_limit + 1)
        self.logger.console_logger.info(
            f"replay: {self.training.buffer_size} episodes, {nbytes(*shape) / 2**30:.3f} GiB on {device}"
        )
        return ReplayBuffer(*shape, device=device, seed=seed)


class Terminated(KeyboardInterrupt):
    """SIGTERM, as an exception, so that a scheduler's kill ends a run as Ctrl-C does."""


def launch(config):
    """Run the experiment of a Config; returns the exit status 0, 1, 130 or 143.

    Raises ConfigError for bad input, before anything is written.
    """
    console_logger = get_logger()
    early = MemoryHandler(capacity=1000, flushLevel=logging.CRITICAL + 1)  # what log.txt has missed
    console_logger.addHandler(early)
    logger = Logger(console_logger)
    if config.sources["seed"] == "chosen now":
        console_logger.info(f"seed={config.values['seed']} (chosen now; give seed=N to repeat this run)")
    parts = Parts(config.values, logger)
    try:
        directory = RunDirectory(config.values, t_start=parts.runner.t_env)
        try:
            sacred_run = _open_logs(directory, logger, early.buffer)
            directory.write_summary("running", parts.runner, logger)
        except (ConfigError, OSError) as error:  # a package is missing, the disk is full
            get_logger()  # closes log.txt
            directory.discard()
            raise error if isinstance(error, ConfigError) else unwritable(directory.path, error) from error
        print(f"run directory: {directory.path}", flush=True)
        return _guarded(parts, directory, sacred_run)
    finally:
        parts.env.close()
        logger.finish()


def _open_logs(directory, logger, early):
    """Open every place that records go to; returns what starts the Sacred run."""
    log = get_logger(directory.path / "log.txt")
    for record in early:
        log.handlers[-1].handle(record)
    logger.add_sink(JsonlSink(directory.path / "metrics.jsonl"))
    _add_optional_sinks(logger, directory.values, directory)
    return _sacred(directory.values)


def _guarded(parts, directory, sacred_run):
    """Train; whatever happens, say how it ended and write the summary. Returns the exit status."""
    logger, log = parts.logger, parts.logger.console_logger
    previous = signal.signal(signal.SIGTERM, _terminate)
    status, reason, code = "finished", None, 0
    try:
        sacred_run(lambda run: _run(parts, directory, run))
    except TrainingError as error:
        status, reason, code = "failed", str(error), 1
    except KeyboardInterrupt as error:
        status, code = "interrupted", 143 if isinstance(error, Terminated) else 130
        reason = "SIGTERM" if code == 143 else "Ctrl-C"
    except Exception as error:  # a bug, or a fault of the machine: the log keeps where
        log.error("training failed", exc_info=True)
        status, reason, code = "failed", brief(error), 1
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not tear the summary
        parts.env.close()
        logger.finish()
        try:
            directory.write_summary(status, parts.runner, logger, reason)
        except OSError as error:
            status, reason, code = "failed", reason or f"summary.json: {brief(error)}", code or 1
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, previous)
    print(f"run directory: {directory.path}", flush=True)
    if reason:
        log.error(f"{status}: {reason}")
    return code


def _terminate(signum, frame):
    raise Terminated


def _run(parts, directory, sacred_run):
    logger, runner, learner = parts.logger, parts.runner, parts.learner
    logger.add_sink(SacredSink(sacred_run, parts.training.t_max))
    if parts.experiment.evaluate:
        test(parts.training, runner, render=parts.args.render)
        logger.print_recent_stats()
        if parts.experiment.save_replay:
            logger.console_logger.info(f"replay: {parts.env.save_replay()}")
        _refuse_losses([_report_tables(parts, directory)])
        return
    saver = Saver(directory, learner, logger.console_logger)
    progress = TrainingProgress(parts.training.t_max, logger, Console(stderr=True), start=runner.t_env)
    try:
        with progress:
            train(parts.training, runner, parts.buffer, learner, logger, saver, progress, parts.device)
    except (KeyboardInterrupt, envs.GameError):  # neither says anything against the weights
        if parts.training.save_model:
            saver(runner.t_env)
        raise
    finally:
        logger.finish()  # while Sacred still listens
    if learner.training_steps == 0:
        logger.console_logger.warning(
            f"nothing was learned: {runner.episodes} episodes were played, and updates begin at "
            f"batch_size = {parts.training.batch_size}; raise t_max or lower batch_size"
        )
    checkpoint = f"checkpoint {runner.t_env} ({saver.failure})" if saver.failure else None
    _refuse_losses([checkpoint, _report_tables(parts, directory)])


def _refuse_losses(losses):
    """TrainingError that names what is not None: results that could not be written."""
    losses = [loss for loss in losses if loss]
    if losses:
        raise TrainingError(f"the run is finished, but could not be written: {', '.join(losses)}")


class Saver:
    """Writes checkpoints. A disk that is full costs a warning and a later try, not the run."""

    def __init__(self, directory, learner, console_logger):
        self.directory, self.learner, self.log = directory, learner, console_logger
        self.failure = None  # of the last try

    def __call__(self, t_env):
        try:
            self.directory.save_checkpoint(self.learner, t_env)
            self.failure = None
        except OSError as error:
            self.failure = brief(error)
            self.log.warning(f"checkpoint {t_env} not written: {self.failure}; training goes on")


def _report_tables(parts, directory):
    """Of a one-step matrix game: the tables in the terminal, tables.json and its picture.

    Returns what could not be written, or None.
    """
    env_class = envs.env_class(parts.experiment.env)
    if not hasattr(env_class, "observe_all_states"):
        return None
    game = envs.make(parts.experiment.env, parts.values["env_args"])  # parts.env may be worker processes
    learned = tables.learned_tables(game, parts.learner, parts.scheme, parts.groups, parts.device)
    if not learned:
        parts.logger.console_logger.info("tables.json: not written, there are too many joint actions to list")
        return None
    tables.show(learned, Console())
    try:
        tables.write_json(learned, directory.path / "tables.json")
        tables.draw(learned, directory.path / "tables.png", f"{parts.experiment.name}, seed {parts.experiment.seed}")
    except OSError as error:
        return f"tables ({brief(error)})"
    print(f"picture: {directory.path / 'tables.png'}")
    return None


def _add_optional_sinks(logger, values, directory):
    if values["use_tensorboard"]:
        logger.add_sink(TensorBoardSink(directory.path / "tensorboard"))
    if values["use_wandb"]:
        logger.add_sink(WandbSink(values, values["wandb_team"], values["wandb_project"], values["wandb_mode"]))


def _sacred(values):
    """A function that calls main(run) inside a Sacred run with its observers."""
    sacred = import_sacred()
    from utils.observers import PatientMongoObserver, file_observer

    sacred.SETTINGS["CAPTURE_MODE"] = "no"  # log.txt holds the output; capturing breaks the live progress
    sacred.SETTINGS["DISCOVER_SOURCES"] = sacred.SETTINGS["DISCOVER_DEPENDENCIES"] = "none"
    experiment = sacred.Experiment(values["name"], save_git_info=False)  # a tree without commits crashes it
    experiment.logger = logging.getLogger("qtran.sacred")
    experiment.logger.setLevel(logging.WARNING)
    experiment.add_config(values)
    if values["mongo_url"]:  # first, for it writes nothing and may refuse; Sacred calls them by priority
        experiment.observers.append(PatientMongoObserver(values["mongo_url"], values["mongo_db"]))
    experiment.observers.append(file_observer(values["local_results_path"], values["name"], task_name(values)))

    def run(main):
        @experiment.main
        def command(_run):
            main(_run)

        experiment.run()

    return run
