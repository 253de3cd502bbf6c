"""Runs one experiment: its parts, the places that records go to, training, and how it ended."""

import logging
from logging.handlers import MemoryHandler

from rich.console import Console

import envs
import tables
from parts import Parts
from training import test, train
from utils import interrupts
from utils.args import ConfigError, TrainingError
from utils.config import import_sacred, task_name
from utils.logging import Logger, brief, get_logger, unwritable
from utils.progress import TrainingProgress
from utils.rundir import RunDirectory
from utils.sinks import JsonlSink, SacredSink, TensorBoardSink, WandbSink


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
    except BaseException:
        _close(parts.env, console_logger)
        logger.finish()
        raise
    print(f"run directory: {directory.path}", flush=True)
    return _guarded(parts, directory, sacred_run)


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
    interrupts.catch()
    status, reason, code = "finished", None, 0
    try:
        sacred_run(lambda run: _run(parts, directory, run))
    except TrainingError as error:
        status, reason, code = "failed", str(error), 1
    except interrupts.Interrupted as error:
        status, reason, code = "interrupted", str(error), error.status
    except (Exception, SystemExit) as error:  # a bug, or a fault of the machine: the log keeps where
        log.error("training failed", exc_info=True)
        status, reason, code = "failed", brief(error), 1
    finally:
        logger.finish()
        try:
            directory.write_summary(status, parts.runner, logger, reason)
        except OSError as error:
            status, reason, code = "failed", reason or f"summary.json: {brief(error)}", code or 1
        _close(parts.env, log)
        interrupts.release()
    print(f"run directory: {directory.path}", flush=True)
    if reason:
        log.error(f"{status}: {reason}")
    return code


def _close(env, log):
    """What goes wrong here costs a warning: all is learned and written."""
    try:
        env.close()
    except Exception as error:
        log.warning(f"closing the environment: {brief(error)}")


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
            f"batch_size = {parts.training.batch_size} episodes and learning_starts = {parts.training.learning_starts} "
            "steps; raise t_max or lower those"
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
    from utils.mongo_observer import PatientMongoObserver
    from utils.observers import file_observer

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
