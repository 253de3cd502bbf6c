"""Pack the finished runs of a study into one small file, from which src/report.py gives the same report again.

python studies/pack_runs.py results/studies/smax_3m docs/smax/3m_runs.tar.xz
"""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
from utils import command
from utils.args import ConfigError
from utils.runs import find_runs, read_bytes

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence


DETAILS = """\
of each run the file holds config.yaml, summary.json and, of metrics.jsonl, the records of tests: a few kB. To go on
with it, here or elsewhere:

  tar -xJf docs/smax/3m_runs.tar.xz -C FOLDER
  python src/report.py FOLDER/smax_3m

The same runs give the same file, byte by byte.

exit status: 0 written; 2 bad input
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return command.status_of(act, parser().parse_args(argv))


def parser() -> argparse.ArgumentParser:
    p = command.parser("studies/pack_runs.py", "Pack the finished runs of a study into one small file.", DETAILS)
    p.add_argument("path", metavar="PATH", help="a folder that holds runs, such as results/studies/smax_3m")
    p.add_argument("file", metavar="FILE.tar.xz", help="what to write")
    return p


def act(options: argparse.Namespace) -> int:
    root, file = Path(options.path), Path(options.file)
    runs = [run for run in find_runs(root) if run.status == "finished"]
    if not runs:
        raise ConfigError(f"{root}: no finished run below it")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as tar:
        for run in runs:
            for name, data in kept(run.path):
                entry = tarfile.TarInfo(str(Path(root.resolve().name, run.path.relative_to(root), name)))
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(packed.getvalue())
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror}") from error
    print(f"{file}: {len(runs)} runs, {len(packed.getvalue()) / 1000:.0f} kB")
    return 0


def kept(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of what is kept of a run directory. ConfigError where a file of it cannot be read."""
    for name in ("config.yaml", "summary.json", "metrics.jsonl"):
        try:
            data = read_bytes(path / name)
        except OSError as error:
            why = error.strerror or error
            raise ConfigError(f"{path / name} cannot be read: {why}; give a folder without it") from error
        if name == "metrics.jsonl":
            data = b"".join(line for line in data.splitlines(keepends=True) if line.startswith(b'{"key": "test_'))
        yield name, data


if __name__ == "__main__":
    sys.exit(main())
