"""Runs one experiment: its parts, the places that records go to, training, and how it ended."""

import contextlib
import logging
import shutil
import sys
import time
from logging.handlers import MemoryHandler
from pathlib import Path

from rich.console import Console

import envs
import resuming
import tables
from components.episode_buffer import nbytes
from keeper import Keeper
from parts import Parts, readers
from training import Schedule, note_on_updates, test, train
from utils import interrupts
from utils.args import ConfigError, TrainingError
from utils.claim import ClaimLost, Held, take
from utils.clock import in_words
from utils.config import import_sacred
from utils.identity import flat, may_change
from utils.logging import Logger, brief, get_logger, unwritable, without_passwords
from utils.progress import TrainingProgress
from utils.rundir import RunDirectory
from utils.runs import Damaged, read_bytes
from utils.sinks import JsonlSink, SacredSink, Sink, TensorBoardSink, WandbSink, cut_metrics
from utils.state import Saved, StateFolder
from utils.trace import Trace

METRICS, BEYOND = "metrics.jsonl", "metrics.superseded.jsonl"  # the record, and what states have set aside of it
SUMMARY_SECONDS = 30  # between two summaries of a run that goes on; `--status` reads how far it is


def launch(config, profile: bool = False) -> int:
    """Run the experiment of a Config in a new run directory; returns the exit status. profile: write trace.json.

    Raises ConfigError for bad input, before anything is written.
    """
    with _interruptible():
        console_logger, early = _console()
        if config.sources["seed"] == "chosen now":
            console_logger.info(f"seed={config.values['seed']} (chosen now; give seed=N to repeat this run)")
        parts = Parts(config.values, Logger(console_logger))
        if note := note_on_updates(config.values, config.replaced):
            console_logger.warning(note)
        with _closed_if_it_fails(parts):
            _check_room(parts)
            _check_mongo(config.values | config.secrets)
            directory = None
            try:
                with interrupts.held():
                    directory = RunDirectory.create(config.values, t_start=parts.runner.t_env)
                print(f"run directory: {directory.path}", flush=True)
                experiment = _Experiment(parts, directory, None, None, early, config.secrets)
                if profile:
                    experiment.trace = Trace(directory.path / "trace.json", console_logger)
            except BaseException:
                if directory is not None:
                    directory.discard()
                raise
        return _guarded(experiment)


def resume(path: str, overrides: dict, strict: bool = False) -> int:
    """Go on with the run in the directory `path`; returns the exit status.

    Raises ConfigError, with the directory as it was, for what cannot be resumed. strict: also where the state was
    written by another version or on another machine, which else is a warning.
    """
    with _interruptible():
        run = resuming.read_run(path)
        config = resuming.changed_config(run, overrides, readers)
        goal = config.values["t_max"]
        if run.status == "finished" and goal <= run.config["t_max"]:
            print(f"run directory: {run.path}", flush=True)
            print(f"finished: t_env {run.summary.get('t_env')} of t_max = {goal}; to go on give a larger t_max")
            return 0
        claim = take(run.path, config.values["lease_seconds"])
        try:
            directory = RunDirectory(run.path, config.values, claim)
            return _resume(directory, resuming.read_run(path), strict, config.secrets)
        finally:
            claim.release()


def resume_latest(config, strict: bool = False) -> int:
    """Go on with the newest run of a Config that nobody works on, or start it; returns the exit status."""
    damaged = set()
    while True:
        run, said = resuming.find_latest(config, damaged)
        for line in said:
            print(line, flush=True)
        if run is None:
            return launch(config)
        try:
            return _resume_found(run, config, strict)
        except Held:  # another process was quicker
            continue
        except Damaged as error:
            print(f"{run.path} cannot be resumed: {error}", flush=True)
            damaged.add(run.path)


def _resume_found(run, config, strict: bool) -> int:
    if run.status == "failed":
        print(f"run directory: {run.path}", flush=True)
        get_logger().error(
            f"failed before: {run.summary.get('reason')}; to go on from its last state: "
            f"python src/main.py --resume {run.path}; to begin anew leave --resume out"
        )
        return 1
    changes = {k: v for k, v in flat(config.values | config.secrets).items() if may_change(k)}
    return resume(str(run.path), changes, strict)


def _resume(directory: RunDirectory, run, strict: bool, secrets: dict) -> int:
    console_logger, early = _console()
    states = StateFolder(directory.path / "state", directory.claim.look)
    saved = states.read()
    if saved is None and run.status == "finished":
        raise ConfigError(f"{run.path}: it is finished and holds no state, so it cannot be made longer")
    for note in saved.notes if saved else []:
        console_logger.warning(f"{states.folder}: {note}; the state before it is taken")
    parts = Parts(directory.values, Logger(console_logger), start=saved is None)
    with _closed_if_it_fails(parts):
        differs = []
        if saved is not None:
            differs = resuming.check(saved, resuming.facts(parts, directory.commit), states.folder, strict)
            if saved.replay is None and saved.parts["runner"]["t_env"] < parts.training.t_max:
                raise ConfigError(
                    f"{run.path}: its replay was not kept, so it cannot be made longer; keep_replay=True keeps it"
                )
        _check_room(parts, states.folder)
        _check_mongo(directory.values | secrets)
        t_env = saved.parts["runner"]["t_env"] if saved else 0
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        directory.resumed = [*(run.summary.get("resumed") or []), {"t_env": t_env, "time": now, "differs": differs}]
        experiment = _Experiment(parts, directory, states, saved, early, secrets)
        print(f"run directory: {run.path}", flush=True)
        if differs:
            console_logger.warning(
                "the state was written elsewhere, the same bits are not promised: " + "; ".join(differs)
            )
        if parts.env.own_process:
            console_logger.warning("games are started anew: counts and weights go on, the same bits are not promised")
        where = f"t_env {parts.runner.t_env}" if saved else "the beginning, as no state was written yet"
        console_logger.info(f"resumed from {where}")
    return _guarded(experiment)


class _Experiment:
    """A run's parts with their state, its directory, and the places that its records go to, all open.

    saved: the state to go on from, or None. states: where states go; None in a new run. secrets: of the Config.
    """

    def __init__(
        self, parts, directory: RunDirectory, states: StateFolder | None, saved: Saved | None, early, secrets: dict
    ):
        self.parts, self.directory = parts, directory
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
                directory.write_config()
            self.kept = kept
            self.summary("running")
        except (ConfigError, OSError) as error:  # a package is missing, the disk is full
            get_logger()  # closes log.txt
            raise error if isinstance(error, ConfigError) else unwritable(path, error) from error

    def summary(self, status: str, reason: str | None = None) -> None:
        """Write summary.json."""
        parts = self.parts
        self.directory.write_summary(status, parts.runner, parts.logger, reason, parts.learner.training_steps)

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


def _guarded(experiment: _Experiment) -> int:
    """Train; whatever happens, say how it ended and write the summary. Returns the exit status."""
    parts, directory = experiment.parts, experiment.directory
    logger, log = parts.logger, parts.logger.console_logger

    def leave(why: str) -> None:
        experiment.summary("interrupted", why)
        directory.claim.release()

    interrupts.on_leave(leave)
    status, reason, code = "failed", "it was left in an unknown way", 1
    try:
        experiment.sacred_run(lambda run: _run(experiment, run))
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
                if (lost := experiment.lost_records()) and status in ("finished", "failed"):
                    status, reason, code = "failed", f"{reason}; {lost}" if reason else lost, 1
                experiment.summary(status, reason)
                interrupts.on_leave(lambda _: directory.claim.release())
            except OSError as error:
                status, reason, code = "failed", reason or f"summary.json: {brief(error)}", code or 1
            except ClaimLost as error:
                status, reason, code = "taken over", str(error), 1
            _close(parts.runner, log)
            print(f"run directory: {directory.path}", flush=True)
            if status == "interrupted" and not parts.experiment.evaluate:
                log.info(f"go on with: python src/main.py --resume {directory.path}")
            if reason:
                log.error(f"{status}: {reason}")
            directory.claim.release()
    return code


def _close(runner, log):
    """What goes wrong here costs a warning: all is learned and written."""
    try:
        runner.close()
    except Exception as error:
        log.warning(f"closing the environment: {brief(error)}")


def _run(experiment: _Experiment, sacred_run) -> None:
    parts, directory, keeper = experiment.parts, experiment.directory, experiment.keeper
    logger, runner, learner = parts.logger, parts.runner, parts.learner
    logger.add_sink(SacredSink(sacred_run, parts.training.t_max), experiment.kept)
    if parts.experiment.evaluate:
        test(parts.training, runner, render=parts.args.render)
        logger.print_recent_stats()
        if parts.experiment.save_replay:
            logger.console_logger.info(f"replay: {parts.env.save_replay()}")
        _refuse_losses([_report_tables(parts, directory)])
        return
    beat, trace = _Beat(lambda: experiment.summary("running")), experiment.trace

    def each_round() -> None:
        beat()
        if trace is not None:
            trace.round(runner.rounds, learner.training_steps > 0)

    progress = TrainingProgress(parts.training.t_max, logger, Console(stderr=True), runner.t_env, each_round)
    try:
        with progress:
            train(
                parts.training,
                experiment.schedule,
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


def _refuse_losses(losses):
    """TrainingError that names what is not None: results that could not be written."""
    losses = [loss for loss in losses if loss]
    if losses:
        raise TrainingError(f"the run is finished, but could not be written: {', '.join(losses)}")


class _Beat:
    """Calls `act` now and then. What the disk refuses is tried again the next time."""

    def __init__(self, act):
        self.act, self.last = act, time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self.last >= SUMMARY_SECONDS:
            self.last = time.monotonic()
            with contextlib.suppress(OSError):
                self.act()


@contextlib.contextmanager
def _interruptible():
    """From the first moment on signals end the run in order."""
    interrupts.catch()
    try:
        yield
    finally:
        interrupts.release()


@contextlib.contextmanager
def _closed_if_it_fails(parts):
    try:
        yield
    except BaseException:
        _close(parts.runner, parts.logger.console_logger)
        parts.logger.finish()
        raise


def _console():
    """(the console's logger, a handler with all that log.txt has missed)."""
    console_logger = get_logger()
    early = MemoryHandler(capacity=1000, flushLevel=logging.CRITICAL + 1)
    console_logger.addHandler(early)
    return console_logger, early


def _check_room(parts, states: Path | None = None) -> None:
    """ConfigError where the disk cannot hold the replay of a resumable state. states: the folder of earlier ones."""
    config = parts.resuming
    if parts.buffer is None or not (config.resume_minutes or config.resume_interval):
        return
    steps = min(parts.training.buffer_size * parts.buffer.max_seq_length, 2 * parts.training.t_max)  # observations
    need = nbytes(parts.scheme, parts.groups, 1, steps)
    folder = Path(parts.values["local_results_path"] if states is None else states).absolute()
    there = next(f for f in (folder, *folder.parents) if f.exists())
    have = sum(f.stat().st_size for f in there.glob("replay.*")) if states == there else 0
    free = shutil.disk_usage(there).free
    if need > free + have:
        raise ConfigError(
            f"the resumable state of this run needs up to {need / 2**30:.2f} GiB, and {there} has "
            f"{free / 2**30:.2f} GiB free; make room, or give local_results_path=FOLDER, a smaller buffer_size, or "
            "resume_minutes=0 for no states"
        )


def _check_mongo(values: dict) -> None:
    """ConfigError for an address that is none. values: with the password, if it is known."""
    sys.argv[1:] = map(without_passwords, sys.argv[1:])  # wandb keeps the command line
    if values["mongo_url"]:
        import_sacred()
        from utils.mongo_observer import PatientMongoObserver

        PatientMongoObserver(values["mongo_url"], values["mongo_db"]).close()


def _remove_checkpoints_of_interruptions(path: Path) -> None:
    """A run that had never stopped would not have them."""
    for meta in path.glob("checkpoints/*/meta.json"):
        with contextlib.suppress(OSError):  # damaged, which does not matter here
            if b'"interrupted": true' in read_bytes(meta):
                shutil.rmtree(meta.parent, ignore_errors=True)


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


def _sacred(directory: RunDirectory, secrets: dict):
    """A function that calls main(run) inside a Sacred run with its observers. secrets: of the Config."""
    sacred = import_sacred()
    from utils.mongo_observer import PatientMongoObserver
    from utils.observers import file_observer

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

    def run(main):
        @experiment.main
        def command(_run):
            main(_run)

        experiment.run()

    return run
