"""Starts a run, or goes on with one: what may refuse it comes before the first change of a file."""

import contextlib
import logging
import shutil
import sys
import time
from collections.abc import Iterator
from logging.handlers import MemoryHandler
from pathlib import Path

import resuming
from components.episode_buffer import nbytes
from open_run import OpenRun, close, guarded
from parts import Parts, readers
from recording.trace import Trace
from training import note_on_updates
from utils import interrupts
from utils.args import ConfigError
from utils.claim import Held, take
from utils.config import Config, import_sacred
from utils.identity import flat, may_change
from utils.logging import Logger, get_logger
from utils.messages import without_passwords
from utils.resume_state import StateFolder
from utils.rundir import RunDirectory
from utils.runs import Damaged, Run


def launch(config: Config, profile: bool = False) -> int:
    """Run the experiment of a Config in a new run directory; returns the exit status. profile: write trace.json.

    Raises ConfigError for bad input, before anything is written.
    """
    return _launch(config, profile)[1]


def launch_here(config: Config) -> Path:
    """The same, called from Python; returns the run directory."""
    return _launch(config, False)[0]


def _launch(config: Config, profile: bool) -> tuple[Path, int]:
    with _interruptible():
        console_logger, early = _console()
        if config.sources["seed"] == "chosen now":
            console_logger.info(f"seed={config.values['seed']} (chosen now; give seed=N to repeat this run)")
        evaluates = config.values["evaluate"]
        if evaluates and profile:
            raise ConfigError("--profile is for training, and evaluate=True does not train; remove one of the two")
        parts = Parts(config.values, Logger(console_logger))
        if evaluates and config.values["absolute_metric"]:
            console_logger.warning("absolute_metric=True does nothing with evaluate=True: it comes after training")
        if not evaluates and (note := note_on_updates(config.values, config.replaced)):
            console_logger.warning(note)
        with _closed_if_it_fails(parts):
            _check_room(parts)
            _hide_passwords()
            _check_mongo(config.values | config.secrets)
            directory = None
            try:
                with interrupts.held():
                    directory = RunDirectory.create(config.values, t_start=parts.runner.t_env)
                print(f"run directory: {directory.path}", flush=True)
                open_run = OpenRun(parts, directory, None, None, early, config.secrets)
                if profile:
                    open_run.trace = Trace(directory.path / "trace.json", console_logger)
            except BaseException:
                if directory is not None:
                    directory.discard()
                raise
        return directory.path, guarded(open_run)


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


def resume_latest(config: Config, strict: bool = False) -> int:
    """Go on with the newest run of a Config that nobody works on, or start it; returns the exit status."""
    damaged = set()
    while True:
        run, messages = resuming.find_latest(config, damaged)
        for message in messages:
            print(message, flush=True)
        if run is None:
            return launch(config)
        try:
            return _resume_found(run, config, strict)
        except Held:  # another process was quicker
            continue
        except Damaged as error:
            print(f"{run.path} cannot be resumed: {error}", flush=True)
            damaged.add(run.path)


def _resume_found(run: Run, config: Config, strict: bool) -> int:
    if run.status == "failed":
        print(f"run directory: {run.path}", flush=True)
        get_logger().error(
            f"failed before: {run.summary.get('reason')}; to go on from its last state: "
            f"python src/main.py --resume {run.path}; to begin anew leave --resume out"
        )
        return 1
    changes = {k: v for k, v in flat(config.values | config.secrets).items() if may_change(k)}
    return resume(str(run.path), changes, strict)


def _resume(directory: RunDirectory, run: Run, strict: bool, secrets: dict) -> int:
    console_logger, early = _console()
    states = StateFolder(directory.path / "state", directory.claim.look)
    saved = states.read()
    if saved is None and run.status == "finished":
        raise ConfigError(f"{run.path}: it is finished and holds no state, so it cannot be made longer")
    for note in saved.notes if saved else []:
        console_logger.warning(f"{states.folder}: {note}; the state before it is taken")
    kernels = resuming.kernels_of(saved) if saved else None
    parts = Parts(directory.values, Logger(console_logger), start=saved is None, kernels=kernels)
    with _closed_if_it_fails(parts):
        differs = []
        if saved is not None:
            differs = resuming.check(saved, resuming.facts(parts, directory.commit), states.folder, strict)
            if saved.replay is None and saved.parts["runner"]["t_env"] < parts.training.t_max:
                raise ConfigError(
                    f"{run.path}: its replay was not kept, so it cannot be made longer; keep_replay=True keeps it"
                )
        _check_room(parts, states.folder)
        _hide_passwords()
        _check_mongo(directory.values | secrets)
        if saved is None:
            directory.t_start = parts.runner.t_env  # what checkpoint_path brought along; a state says it itself
        t_env = saved.parts["runner"]["t_env"] if saved else directory.t_start
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        directory.resumed = [*(run.summary.get("resumed") or []), {"t_env": t_env, "time": now, "differs": differs}]
        open_run = OpenRun(parts, directory, states, saved, early, secrets)
        print(f"run directory: {run.path}", flush=True)
        if differs:
            console_logger.warning(
                "the state was written elsewhere, the same bits are not promised: " + "; ".join(differs)
            )
        if parts.env.own_process:
            console_logger.warning(
                "the games start again: weights and counters continue, but results may differ in the last bits"
            )
        where = f"t_env {parts.runner.t_env}" if saved else "the beginning, as no state was written yet"
        console_logger.info(f"resumed from {where}")
    return guarded(open_run)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """From the first moment on signals end the run in order."""
    interrupts.catch()
    try:
        yield
    finally:
        interrupts.release()


@contextlib.contextmanager
def _closed_if_it_fails(parts: Parts) -> Iterator[None]:
    try:
        yield
    except BaseException:
        close(parts.runner, parts.logger.console_logger)
        parts.logger.finish()
        raise


def _console() -> tuple[logging.Logger, MemoryHandler]:
    """(the console's logger, a handler with all that log.txt has missed)."""
    console_logger = get_logger()
    early = MemoryHandler(capacity=1000, flushLevel=logging.CRITICAL + 1)
    console_logger.addHandler(early)
    return console_logger, early


def _check_room(parts: Parts, states: Path | None = None) -> None:
    """ConfigError where the disk cannot hold the replay of the resumable states. states: the folder of earlier ones.

    A run without states on its way writes one at a signal and at its end. Where there are several, the one before stays
    while one is written, and the two may have no episode in common.
    """
    config, buffer = parts.resuming, parts.buffer
    if buffer is None:
        return
    several = states is not None or config.resume_minutes or config.resume_interval
    steps = (2 if several else 1) * parts.training.buffer_size * buffer.max_seq_length  # observations
    need = nbytes(parts.scheme, parts.groups, 1, min(steps, 2 * parts.training.t_max))  # no more than are played
    folder = Path(parts.values["local_results_path"] if states is None else states).absolute()
    there = next(f for f in (folder, *folder.parents) if f.exists())
    if states is not None and there == folder:
        need -= sum(f.stat().st_size for f in there.glob("replay.*"))  # what is there is in place, or makes room
    free = shutil.disk_usage(there).free
    if need > free:
        other = ", or give local_results_path=FOLDER or a smaller buffer_size" if states is None else " on this disk"
        raise ConfigError(
            f"the resumable states of this run need up to {need / 2**30:.2f} GiB{' more' if states else ''}, and "
            f"{there} has {free / 2**30:.2f} GiB free; make room{other}"
        )


def _check_mongo(values: dict) -> None:
    """ConfigError for an invalid mongo_url. values: with the password, if it is known."""
    if values["mongo_url"]:
        import_sacred()
        from recording.mongo_observer import PatientMongoObserver

        PatientMongoObserver(values["mongo_url"], values["mongo_db"]).close()


def _hide_passwords() -> None:
    """Take them out of the command line, which wandb keeps."""
    sys.argv[1:] = map(without_passwords, sys.argv[1:])
