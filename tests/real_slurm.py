"""A real Slurm of one node in a folder of its own: munged, slurmctld and slurmd. Nothing of the system's is touched."""

import os
import shutil
import socket
import subprocess
from contextlib import ExitStack, contextmanager
from pathlib import Path

from command import wait_until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
INSTALL = "apt-get install slurm-wlm munge"
CORES, GPUS = 2, 2  # that the node claims to have

# Partition `high` takes the node from jobs of `low`, which go back into the queue.
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=20
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=8000 Gres=gpu:a100:{gpus}
PartitionName=low Nodes={host} Default=YES PriorityTier=1 MaxTime=60
PartitionName=high Nodes={host} PriorityTier=10 MaxTime=60
"""


def missing():
    """Why there can be no Slurm here, or None."""
    absent = [name for name in PROGRAMS if not (shutil.which(name) or Path("/usr/sbin", name).exists())]
    if absent:
        return f"needs {', '.join(absent)}: {INSTALL}"
    return None if os.geteuid() == 0 else "needs root: slurmd starts jobs as their users"


@contextmanager
def slurm(folder):
    """Slurm, for whom the variables are that it yields."""
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host, ports = socket.gethostname().partition(".")[0], [free_port(), free_port()]
    text = CONFIGURATION.format(host=host, ports=ports, folder=folder, user="root", cores=CORES, gpus=GPUS)
    (folder / "slurm.conf").write_text(text)
    (folder / "gres.conf").write_text(
        f"NodeName={host} Name=gpu Type=a100 File=/dev/null\nNodeName={host} Name=gpu Type=a100 File=/dev/zero\n"
    )
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    path = os.environ["PATH"] + ":/usr/sbin"
    env = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}
    munged = ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket"]
    munged += [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "seed", "log")]
    with ExitStack() as stack:

        def daemon(*words):
            out = stack.enter_context(open(folder / f"{words[0]}.txt", "w"))
            process = subprocess.Popen(words, env=os.environ | env, stdout=out, stderr=out)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            return process

        munge = daemon(*munged)
        wait_until((folder / "munge.socket").exists, munge)
        daemon("slurmctld", "-D")
        node = daemon("slurmd", "-D", "-N", host)

        def idle():
            words = ["sinfo", "-h", "-p", "low", "-o", "%T"]
            return subprocess.run(words, env=os.environ | env, capture_output=True, text=True).stdout.strip() == "idle"

        wait_until(idle, node)
        yield env
        subprocess.run(["scancel", "--state=PENDING", "--user=root"], env=os.environ | env)
        subprocess.run(["scancel", "--signal=KILL", "--full", "--user=root"], env=os.environ | env)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
