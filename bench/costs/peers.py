"""Which peer a folder holds."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from costs.sides import BadInput

# {kind: (its name, files that it has and none of the later ones)}
KNOWN = {
    "starry": ("MARL-Algorithms", ("policy/qtran_alt.py", "network/qtran_net.py")),
    "pymarl2": ("pymarl2", ("src/learners/dmaq_qatten_learner.py", "src/learners/nq_learner.py")),
    "wqmix": ("wqmix", ("src/learners/max_q_learner_sac.py", "src/config/algs/ow_qmix.yaml")),
    "resq": ("ResQ", ("ResQ/src/learners/rest_q_learner_central.py",)),
    "epymarl": ("EPyMARL", ("src/learners/qtran_learner.py", "src/components/episode_buffer.py", "src/main.py")),
    "jaxmarl": ("JaxMARL", ("baselines/QLearning/qmix_rnn.py", "jaxmarl/__init__.py")),
}


@dataclass(frozen=True)
class Peer:
    kind: str
    name: str
    path: str

    @property
    def commit(self) -> str:
        command = ["git", "-C", self.path, "log", "-1", "--format=%h"]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "commit unknown"


def recognise(path: str) -> Peer:
    """The Peer in the folder `path`. BadInput where there is none."""
    folder = Path(path).resolve()
    for kind, (name, files) in KNOWN.items():
        if all((folder / file).is_file() for file in files):
            return Peer(kind, name, str(folder))
    what = "it is not there" if not folder.exists() else "it is no folder" if not folder.is_dir() else "none is in it"
    raise BadInput(
        f"--peer {path}: {what}; give a checkout of EPyMARL (github.com/uoe-agents/epymarl), MARL-Algorithms "
        "(github.com/starry-sky6688/MARL-Algorithms), JaxMARL (github.com/FLAIROx/JaxMARL), or of the comparators' "
        "code: hijkzzz/pymarl2, oxwhirl/wqmix, xmu-rl-3dv/ResQ"
    )
