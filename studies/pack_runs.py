"""Pack the finished runs of a study into one small file, from which src/report.py gives the same report again; or the
unfinished ones, which go on elsewhere.

python studies/pack_runs.py results/studies/smax_3m docs/smax/3m_runs.tar.xz
python studies/pack_runs.py --unfinished results/studies/smax_3m unfinished.tar.xz
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
from utils import command
from utils.args import ConfigError
from utils.claim import take_idle
from utils.runs import find_runs, folders, read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


DETAILS = """\
of each run the file holds config.yaml, summary.json and, of metrics.jsonl, the records of tests: a few kB. To go on
with it, here or elsewhere:

  tar -xJf docs/smax/3m_runs.tar.xz -C FOLDER
  python src/report.py FOLDER/smax_3m

The same runs give the same file, byte by byte.

With --unfinished the file holds the runs that were stopped or killed: their records, their checkpoints, and the newest
state with the replay. They go on where the file is unpacked:

  python studies/pack_runs.py --unfinished results/studies/smax_3m unfinished.tar.xz
  tar -xJf unfinished.tar.xz -C results/studies
  python src/sweep.py studies/smax_3m.yaml

A run that a process works on is refused. Delete the file once its runs have ended.

A file that is there already stays as it is until the new one is whole.

exit status: 0 written; 2 bad input
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return command.status_of(act, parser().parse_args(argv))


def parser() -> argparse.ArgumentParser:
    p = command.parser("studies/pack_runs.py", "Pack the runs of a study into one small file.", DETAILS)
    p.add_argument("path", metavar="PATH", help="a folder that holds runs, such as results/studies/smax_3m")
    p.add_argument("file", metavar="FILE.tar.xz", help="what to write")
    p.add_argument("--unfinished", action="store_true", help="pack the unfinished runs, with what they need to go on")
    p.add_argument("--most", type=above_0, default=20, metavar="MB", help="refuse to write a larger file (default: 20)")
    return p


def above_0(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def act(options: argparse.Namespace) -> int:
    from reporting.selection import check_paths

    root, file = Path(options.path), Path(options.file)
    check_paths([root])
    if not file.name.endswith(".tar.xz"):
        raise ConfigError(f"{file}: does not end in .tar.xz, the only kind that is written; give FILE.tar.xz")
    if options.unfinished:
        runs = [run for run in find_runs(root) if not run.problem and run.status != "finished"]
        runs = [run for run in runs if (run.path / "state").is_dir()]
    else:
        runs = [run for run in find_runs(root) if run.status == "finished"]
    if not runs:
        raise ConfigError(
            f"{root}: no {'unfinished run with a state' if options.unfinished else 'finished run'} below it"
        )
    most = int(options.most * 1e6)  # bytes
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as tar:
        for run in runs:
            for name, data in unfinished(run.path) if options.unfinished else kept(run.path):
                entry = tarfile.TarInfo(str(Path(root.resolve().name, run.path.relative_to(root), name)))
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
                if packed.tell() > most:  # at once: a replay can take minutes
                    raise too_large(file, options.most)
    if packed.tell() > most:
        raise too_large(file, options.most)
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(packed.getvalue())
            os.replace(partial, file)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror}; give another FILE.tar.xz") from error
    print(f"{file}: {len(runs)} run{'' if len(runs) == 1 else 's'}, {len(packed.getvalue()) / 1000:.0f} kB")
    return 0


def too_large(file: Path, most: float) -> ConfigError:
    return ConfigError(
        f"{file}: it would have more than {most:g} MB; give a folder with fewer runs, or a larger --most"
    )


def kept(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of what is kept of a finished run. ConfigError where a file of it cannot be read."""
    for name in ("config.yaml", "summary.json", "metrics.jsonl"):
        data = content(path, name)
        if name == "metrics.jsonl":
            data = b"".join(line for line in data.splitlines(keepends=True) if line.startswith(b'{"key": "test_'))
        yield name, data


def unfinished(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of an unfinished run: all but who has worked on it and older states. ConfigError where a process
    works on it, where no state is whole, or where a file cannot be read."""
    from utils.resume_state import StateFolder

    claim = take_idle(path)  # held until all is read: nobody may resume it meanwhile
    try:
        state = {f"state/{name}" for name in StateFolder(path / "state").names()}
        for folder, names, below in folders(path):
            for name in sorted(str(folder.relative_to(path) / name) for name in names.difference(below)):
                if not name.startswith("state/") or name in state:
                    yield name, content(path, name)
            below[:] = [name for name in below if folder / name != path / "claims"]
    finally:
        claim.release()


def content(path: Path, name: str) -> bytes:
    try:
        return read_bytes(path / name)
    except OSError as error:
        why = error.strerror or error
        raise ConfigError(f"{path / name} cannot be read: {why}; give a folder without it") from error


if __name__ == "__main__":
    sys.exit(main())
