"""Command line: put QTRAN into a checkout of EPyMARL, PyMARL2 or PyMARL.

python src/plugin.py install PATH
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.start import leave_at_once

    leave_at_once()

import sys
from typing import TYPE_CHECKING

from hosts import check as checks
from hosts import manifest, plan, recognise
from utils import command
from utils.args import ConfigError
from utils.start import undo_at_ctrl_c

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


DETAILS = """\
  python src/plugin.py check ../epymarl                 what it is, whether the plugin fits, what it needs to run
  python src/plugin.py install ../epymarl --dry-run     each file that would be added, replaced and edited
  python src/plugin.py install ../epymarl --with-games  with the 3x3 matrix game of the QTRAN paper
  python src/plugin.py uninstall ../epymarl             the tree as it was before

and then, in that checkout:

  python src/main.py --config=qtran_alt --env-config=gymma with env_args.key=lbforaging:Foraging-8x8-2p-3f-v3 \\
      env_args.time_limit=50
  python src/main.py --config=qtran_alt --env-config=qtran_matrix_game      test_return_mean reaches 8

docs/plugin.md tells what works where.

exit status: 0 done, or with `check`: the checkout starts; 1 it needs something first; 2 refused, or bad input
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    options = parser().parse_args(argv)
    if sys.version_info < (3, 10):  # noqa: UP036, checkouts are often run by an older one
        print(f"error: Python {sys.version.split()[0]}: the plugin needs 3.10 or later", file=sys.stderr)
        return 2
    acts = {"check": check, "install": install, "uninstall": uninstall}
    undo_at_ctrl_c()
    return command.status_of(acts[options.act], options)


def parser() -> argparse.ArgumentParser:
    p = command.parser(
        "src/plugin.py", "Put QTRAN into a checkout of EPyMARL, PyMARL2 or PyMARL, or take it out.", DETAILS,
        usage="%(prog)s check|install|uninstall PATH [options]",
    )  # fmt: skip
    p.add_argument("act", metavar="check|install|uninstall", choices=("check", "install", "uninstall"))
    p.add_argument("path", metavar="PATH", help="the checkout: the folder that holds its src/")
    p.add_argument("--dry-run", action="store_true", help="say what would change, and change nothing")
    p.add_argument("--with-games", action="store_true", help="install: the paper's 3x3 matrix game too")
    return p


def check(options: argparse.Namespace) -> int:
    host = recognise.recognise(options.path)
    commit = recognise.commit(host.root)
    print(f"{host.root}: {host}{f', at commit {commit}' if commit else ''}")
    fits = show_plugin(host)
    needs = checks.needs(host.root)
    for need in needs:
        print(f"needs: {need.says}\n    {need.fix}")
    error = checks.first_error(host.root)
    if error is not None:
        print(f"it does not start in this Python ({sys.executable}) yet: {error}")
    elif not needs:
        print(f"it starts in this Python ({sys.executable})")
    return 0 if fits and not needs and error is None else 1


def show_plugin(host: recognise.Host) -> bool:
    """Prints whether the plugin is installed, or can be; False where something is in its way."""
    installed = manifest.read(host.root)
    if installed is None:
        try:
            plan_for(host, None, with_games=True, since={})
        except ConfigError as error:
            print(f"plugin: not installed, and cannot be yet: {error}")
            return False
        print("plugin: not installed; it fits")
        return True
    news = "this version" if installed.version == plan.version() else "another version than this: install again"
    print(f"plugin: version {installed.version} is installed, {news}")
    for path in manifest.changed(host.root, installed):
        print(f"  changed since: {path}")
    return True


def install(options: argparse.Namespace) -> int:
    host = recognise.recognise(options.path)
    installed = manifest.read(host.root)
    with_games = options.with_games or (installed is not None and installed.with_games)
    since = {} if installed is None else changed_since(host, installed)
    changes = plan_for(host, installed, with_games, since)
    print(f"{host.root}: {host}")
    if installed is not None:
        same = (installed.version, installed.with_games) == (plan.version(), with_games)
        if same and manifest.complete(host.root, installed, but=since):
            print(f"plugin version {installed.version} is installed already; nothing to do")
            return 0
        print(f"takes out version {installed.version}, then")
    for change in changes:
        print(f"{change.action:<9} {change.path}{f'   ({change.note})' if change.note else ''}")
    if options.dry_run:
        print("dry run: nothing was changed")
        return 0
    if installed is not None:
        manifest.restore(host.root, installed, since)
    manifest.apply(host.root, changes, plan.version(), with_games)
    print(f"installed version {plan.version()}; what was there before is in {manifest.STORE}/backup")
    return 0


def uninstall(options: argparse.Namespace) -> int:
    host = recognise.recognise(options.path)
    root = host.root
    installed = manifest.read(root)
    if installed is None:
        raise ConfigError(f"{root}: no plugin that this command installed (there is no {manifest.STORE}/manifest.json)")
    manifest.originals(root, installed)  # raises where one is damaged, before anything is touched
    since = changed_since(host, installed)
    for path, before in installed.before.items():
        note = "   (what was changed in it since stays)" if path in since else ""
        print(f"{'removes' if before is None else 'restores':<9} {path}{note}")
    if options.dry_run:
        print("dry run: nothing was changed")
        return 0
    manifest.restore(root, installed, since)
    print(f"{root} is as it was before the plugin" + (", but for what was changed since" if since else ""))
    return 0


def plan_for(
    host: recognise.Host, installed: manifest.Installed | None, with_games: bool, since: dict[str, bytes]
) -> list[plan.Change]:
    """The changes that put the plugin into `host`; ConfigError where that cannot, or should not, be done."""
    if installed is not None:
        return plan.changes(host, with_games, {**manifest.originals(host.root, installed), **since})
    changes = plan.changes(host, with_games, {})
    dirty = recognise.uncommitted(host.root, [change.path for change in changes if (host.root / change.path).exists()])
    if dirty:
        raise ConfigError(
            "these files would be replaced or edited, and hold changes that are not committed; "
            "commit or stash them:\n  " + "\n  ".join(dirty)
        )
    return changes


def changed_since(host: recognise.Host, installed: manifest.Installed) -> dict[str, bytes]:
    """{path: bytes without the plugin's edits} of the files that it edited and that were changed since the install.

    ConfigError where changes would be lost.
    """
    changed = manifest.changed(host.root, installed)
    since = {path: plan.taken_out(host, path, manifest.content(host.root / path), installed) for path in changed}
    kept = {path: content for path, content in since.items() if content is not None}
    if lost := [path for path in since if path not in kept]:
        raise ConfigError(
            "these files were changed since the plugin was installed, and your changes would be lost; take them out "
            f"first (the files before the install are in {host.root / manifest.STORE / 'backup'}):\n  "
            + "\n  ".join(lost)
        )
    return kept


if __name__ == "__main__":
    sys.exit(main())
