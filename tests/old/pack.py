"""Packs a short run of this version as tests/old/<version>.tar.xz, which tests/test_old_versions.py loads from then on:

    python tests/old/pack.py

To be called once for each VERSION of src/utils/version.py, at a clean commit. The run has the smallest networks, its
weights, its configuration and a state from which it can be made longer.
"""

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SRC = HERE.parents[1] / "src"
GAME = ["--config=qtran_alt", "--env-config=two_step"]
SIZES = ["hidden_dim=8", "mixing_embed_dim=8"]
SHORT = [
    "seed=1", "t_max=24", "batch_size_run=2", "batch_size=4", "buffer_size=16", "learning_starts=0", "test_interval=8",
    "test_nepisode=2", "log_interval=1000", "use_cuda=False", "save_model=True", "keep_replay=True",
]  # fmt: skip
KEPT = ("config.yaml", "summary.json", "metrics.jsonl", "checkpoints", "state")


def main() -> None:
    sys.path.insert(0, str(SRC))
    from utils.version import VERSION

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(SRC / "main.py"), *GAME, "with", *SIZES, *SHORT]
        subprocess.run(command, cwd=folder, check=True)
        print(pack(Path(folder), HERE / f"{VERSION}.tar.xz"))


def pack(folder: Path, file: Path) -> str:
    """Pack the one run in folder/results; says how large the file is."""
    (run,) = (path.parent for path in folder.glob("results/qtran_alt/*/*/config.yaml"))
    with tarfile.open(file, "w:xz") as tar:
        for name in KEPT:
            if (run / name).exists():
                tar.add(run / name, str((run / name).relative_to(folder)), filter=plain)
    return f"{file}: {file.stat().st_size / 1000:.0f} kB"


def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without its owner's name, and readable by everybody."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.isdir() else 0o644
    return entry


if __name__ == "__main__":
    main()
