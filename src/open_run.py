"""One run that is under way: the places that its records go to, all open; training; and how it ended."""

import contextlib
import csv
import logging
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console

import envs
import resuming
import tables
from keeper import Keeper
from parts import Parts
from recording.progress import TrainingProgress
from recording.sinks import JsonlSink, SacredSink, Sink, TensorBoardSink, WandbSink, cut_metrics
from recording.trace import Trace
from runners.episode_runner import EpisodeRunner
from training import Schedule, test, train
from utils import interrupts
from utils.args import ConfigError, TrainingError
from utils.claim import ClaimLost
from utils.clock import in_words
from utils.config import import_sacred
from utils.logging import get_logger
from utils.messages import brief, unwritable
from utils.resume_state import Saved, StateFolder
from utils.rundir import RunDirectory
from utils.runs import read_bytes

if TYPE_CHECKING:
    from envs.games.matrix_game import MatrixGame

METRICS, BEYOND = "metrics.jsonl", "metrics.superseded.jsonl"  # the record, and what states have set aside of it
SUMMARY_SECONDS = 30  # between two summaries of a run that goes on; `--status` reads how far it is


class OpenRun:
    """A run's parts with their state, its directory, and the places that its records go to, all open.

    saved: the state to go on from, or None. states: where states go; None in a new run. secrets: of the Config.
    """

    def __init__(
        self,
        parts: Parts,
        directory: RunDirectory,
        states: StateFolder | None,
        saved: Saved | None,
        early: MemoryHandler,
        secrets: dict,
    ) -> None:
        self.parts, self.directory = parts, directory
        parts.runner.clock.start()  # wall_time_s counts from the making of the directory, too
        self.trace: Trace | None = None
        resumed, claim, path = states is not None, directory.claim, directory.path
        self.schedule = Schedule(parts.training)
        parts.updates.folder = parts.runner.tolerance.folder = path / "nonfinite"
        self.keeper = Keeper(
            parts,
            directory,
            states or StateFolder(path / "state", claim.look),
            self.schedule,
            resuming.facts(parts, directory.commit),
        )
        if saved is not None:
            self.keeper.load(saved)
        try:
            self.sacred_run = _sacred(directory, secrets)
            optional = self._optional_sinks()  # all that may refuse comes before the first change of the directory
            if saved is not None:
                self.keeper.put_best()
            at = saved.metrics if saved else 0
            kept = cut_metrics(path / METRICS, at, path / BEYOND, claim.look) if resumed else None
            log = get_logger(path / "log.txt", claim.mine)
            for record in early.buffer:
                log.handlers[-1].handle(record)
            metrics = JsonlSink(path / METRICS, claim.look)
            parts.logger.add_sink(metrics)
            self.keeper.metrics = metrics
            for sink in optional:
                parts.logger.add_sink(sink, kept)
            if kept is not None:
                parts.logger.restore(kept)
                _remove_checkpoints_of_interruptions(path)
                _remove_half_written_files(path)
                directory.write_config()
            self.kept = kept
            self.summary("running")
        except (ConfigError, OSError) as error:  # a package is missing, the disk is full
            get_logger()  # closes log.txt
            raise error if isinstance(error, ConfigError) else unwritable(path, error) from error

    def summary(self, status: str, reason: str | None = None) -> None:
        """Write summary.json."""
        parts = self.parts
        parameters = sum(parameter.numel() for parameter in getattr(parts.learner, "params", ()))
        learning = {
            "updates": parts.learner.training_steps,
            "parameters": parameters,
            "kernels": parts.kernels,
        }
        self.directory.write_summary(status, parts.runner, parts.logger, reason, learning)

    def lost_records(self) -> str | None:
        """Which records metrics.jsonl lacks, once it is closed; None where it has all."""
        metrics = self.keeper.metrics
        return f"{metrics.lost} records of metrics.jsonl are lost" if metrics is not None and metrics.lost else None

    def _optional_sinks(self) -> list[Sink]:
        values, sinks = self.directory.values, []
        if values["use_wandb"]:
            team, project, mode = values["wandb_team"], values["wandb_project"], values["wandb_mode"]
            sinks.append(WandbSink(values, team, project, mode, self.directory.claim.run_id))
        if values["use_tensorboard"]:
            sinks.append(TensorBoardSink(self.directory.path / "tensorboard"))
        return sinks


def guarded(open_run: OpenRun) -> int:
    """Train; whatever happens, say how it ended and write the summary. Returns the exit status."""
    parts, directory = open_run.parts, open_run.directory
    logger, log = parts.logger, parts.logger.console_logger

    def leave(why: str) -> None:
        open_run.summary("interrupted", why)
        directory.claim.release()

    interrupts.on_leave(leave)
    status, reason, code = "failed", "it was left in an unknown way", 1
    try:
        open_run.sacred_run(lambda run: _run(open_run, run))
        status, reason, code = "finished", None, 0
    except TrainingError as error:
        status, reason, code = "failed", str(error), 1
    except interrupts.Interrupted as error:
        status, reason, code = "interrupted", str(error), error.status
    except KeyboardInterrupt:  # raised by somebody else, as in a notebook
        status, reason, code = "interrupted", "Ctrl-C", 130
    except ClaimLost as error:
        status, reason, code = "taken over", str(error), 1
    except (Exception, SystemExit) as error:  # a bug, or a fault of the machine: the log keeps where
        log.error("training failed", exc_info=True)
        status, reason, code = "failed", brief(error), 1
    finally:
        with interrupts.held(to_the_end=True):  # a first signal has nothing to end any more
            try:
                logger.finish()
                if (lost := open_run.lost_records()) and status in ("finished", "failed"):
                    status, reason, code = "failed", f"{reason}; {lost}" if reason else lost, 1
                open_run.summary(status, reason)
                interrupts.on_leave(lambda _: directory.claim.release())
            except OSError as error:
                status, reason, code = "failed", reason or f"summary.json: {brief(error)}", code or 1
            except ClaimLost as error:
                status, reason, code = "taken over", str(error), 1
            close(parts.runner, log)
            print(f"run directory: {directory.path}", flush=True)
            if status == "interrupted" and not parts.experiment.evaluate:
                log.info(f"go on with: python src/main.py --resume {directory.path}")
            if reason:
                log.error(f"{status}: {reason}")
            directory.claim.release()
    return code


def close(runner: EpisodeRunner, log: logging.Logger) -> None:
    """A failure here gives a warning only, because all results are written by now."""
    try:
        runner.close()
    except Exception as error:
        log.warning(f"closing the environment: {brief(error)}")


def _run(open_run: OpenRun, sacred_run: Any) -> None:
    parts, directory, keeper = open_run.parts, open_run.directory, open_run.keeper
    logger, runner, learner = parts.logger, parts.runner, parts.learner
    logger.add_sink(SacredSink(sacred_run, parts.training.t_max), open_run.kept)
    if parts.experiment.evaluate:
        episodes = test(parts.training, runner, render=parts.args.render)
        lost = _write_episodes(directory.path / "episodes.csv", episodes)
        if lost is None:
            logger.console_logger.info(f"each episode: {directory.path / 'episodes.csv'}")
        logger.print_recent_stats()
        if parts.experiment.save_replay:
            logger.console_logger.info(f"replay: {parts.env.save_replay()}")
        film = _save_film(parts, directory) if parts.args.render else None
        _refuse_losses([lost, film, _report_tables(parts, directory)])
        return
    assert parts.buffer is not None
    beat, trace = _Beat(lambda: open_run.summary("running")), open_run.trace

    def each_round() -> None:
        beat()
        if trace is not None:
            trace.round(runner.rounds, learner.training_steps > 0)

    progress = TrainingProgress(parts.training.t_max, logger, Console(stderr=True), runner.t_env, each_round)
    try:
        with progress:
            train(
                parts.training,
                open_run.schedule,
                runner,
                parts.buffer,
                learner,
                parts.updates,
                logger,
                keeper,
                progress,
                parts.device,
            )
    except (interrupts.Interrupted, envs.GameError):  # neither says anything against what was learned
        keeper.interrupted()
        raise
    finally:
        if trace is not None:
            trace.close()
        logger.finish()  # while Sacred still listens
    keeper.finished()
    logger.console_logger.info(f"time: {in_words(runner.clock.seconds)}; {learner.training_steps:,} updates")
    if learner.training_steps == 0:
        logger.console_logger.warning(
            f"nothing was learned: {runner.episodes} episodes were played, and updates begin at "
            f"batch_size = {parts.training.batch_size} episodes and learning_starts = {parts.training.learning_starts} "
            "steps; raise t_max or lower those"
        )
    checkpoint = f"checkpoint {runner.t_env} ({keeper.failure})" if keeper.failure else None
    _refuse_losses([checkpoint, _report_tables(parts, directory)])


def _write_episodes(path: Path, episodes: list[dict[str, float]]) -> str | None:
    """A table of the episodes of an evaluation, one a line. Returns what could not be written, or None."""
    try:
        with open(path, "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, episodes[0].keys())
            table.writeheader()
            table.writerows(episodes)
    except OSError as error:
        return f"{path.name} ({brief(error)})"
    return None


def _refuse_losses(losses: Iterable[str | None]) -> None:
    """TrainingError that names what is not None: results that could not be written."""
    losses = [loss for loss in losses if loss]
    if losses:
        raise TrainingError(f"the run is finished, but could not be written: {', '.join(losses)}")


class _Beat:
    """Calls `act` now and then. What the disk refuses is tried again the next time."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act, self.last = act, time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self.last >= SUMMARY_SECONDS:
            self.last = time.monotonic()
            with contextlib.suppress(OSError):
                self.act()


def _remove_checkpoints_of_interruptions(path: Path) -> None:
    """A run that had never stopped would not have them."""
    for meta in path.glob("checkpoints/*/meta.json"):
        with contextlib.suppress(OSError):  # damaged, which does not matter here
            if b'"interrupted": true' in read_bytes(meta):
                shutil.rmtree(meta.parent, ignore_errors=True)


def _remove_half_written_files(path: Path) -> None:
    """Of a process that was killed."""
    for partial in path.glob("*.partial"):
        with contextlib.suppress(OSError):
            partial.unlink()


def _save_film(parts: Parts, directory: RunDirectory) -> str | None:
    """The animation of `render`. Returns what could not be written, or None."""
    try:
        path = parts.runner.film.save(directory.path, parts.experiment.render_format)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"animation ({brief(error)})"
    parts.logger.console_logger.info(f"animation: {path}")
    return None


def _report_tables(parts: Parts, directory: RunDirectory) -> str | None:
    """Of a one-step matrix game: the tables in the terminal, tables.json and its picture.

    Returns what could not be written, or None.
    """
    env_class = envs.env_class(parts.experiment.env)
    if not hasattr(env_class, "observe_all_states"):
        return None
    # Not parts.env, which may be worker processes.
    game = cast("MatrixGame", envs.make(parts.experiment.env, parts.values["env_args"]))
    learned = tables.learned_tables(game, parts.learner, parts.scheme, parts.groups, parts.device)
    if not learned:
        parts.logger.console_logger.info("tables.json: not written, there are too many joint actions to list")
        return None
    lost = None
    try:
        tables.write_json(learned, directory.path / "tables.json")
        tables.draw(learned, directory.path / "tables.png", f"{parts.experiment.name}, seed {parts.experiment.seed}")
    except OSError as error:
        lost = f"tables ({brief(error)})"
    tables.show(learned, Console())
    if lost is None:
        print(f"picture: {directory.path / 'tables.png'}")
    return lost


def _sacred(directory: RunDirectory, secrets: dict) -> Callable[[Callable[[Any], None]], None]:
    """A function that calls main(run) inside a Sacred run with its observers. secrets: of the Config."""
    sacred = import_sacred()
    from recording.mongo_observer import PatientMongoObserver
    from recording.observers import file_observer

    values, claim = directory.values, directory.claim
    sacred.SETTINGS["CAPTURE_MODE"] = "no"  # log.txt holds the output; capturing breaks the live progress
    sacred.SETTINGS["DISCOVER_SOURCES"] = sacred.SETTINGS["DISCOVER_DEPENDENCIES"] = "none"
    experiment = sacred.Experiment(values["name"], save_git_info=False)  # a tree without commits crashes it
    experiment.logger = logging.getLogger("qtran.sacred")
    experiment.logger.setLevel(logging.WARNING)
    experiment.add_config(values)
    where = directory.path.parents[2], values["name"], directory.path.parent.name
    files = file_observer(*where, claim.run_id, claim.mine)
    experiment.observers.append(files)
    if values["mongo_url"]:  # `_check_mongo` has let it pass
        url, began = secrets.get("mongo_url", values["mongo_url"]), files.earlier_entry()[1].get("start_time")
        more = {"run_id": claim.run_id, "mine": claim.mine, "began": began, "run_dir": directory.path}
        experiment.observers.append(PatientMongoObserver(url, values["mongo_db"], **more))

    def run(main: Callable[[Any], None]) -> None:
        @experiment.main
        def command(_run: Any) -> None:
            main(_run)

        experiment.run()

    return run
