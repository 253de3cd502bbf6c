"""Where the game is, which version and maps: read from folders."""

import re

import pytest
from battles import env_args_of, install

from envs.starcraft.installation import (
    SMAC_MAPS,
    SMACV2_SCENARIOS,
    check_map,
    game_version,
    import_problem,
    installed_maps,
    package_problem,
    sc2_path,
)
from envs.starcraft.smacv2 import SMACv2, capability_config, read_scenario
from utils.args import ConfigError


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("SC2PATH", install(tmp_path)["SC2PATH"])
    return sc2_path()


def test_the_lists_are_those_of_the_papers():
    assert len(SMAC_MAPS) == 23 and len(SMACV2_SCENARIOS) == 15
    assert SMAC_MAPS["27m_vs_30m"] == (27, 30, 180) and SMAC_MAPS["2c_vs_64zg"].n_enemies == 64
    assert SMACV2_SCENARIOS["zerg_20_vs_23"] == ("zerg", 20, 23)


def test_the_path_is_sc2path_or_the_home(tmp_path, monkeypatch):
    monkeypatch.delenv("SC2PATH", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="SC2PATH is not set: .*SC2PATH=FOLDER; docker/install_sc2.sh"):
        sc2_path()
    install(tmp_path)
    (tmp_path / "SC2").rename(tmp_path / "StarCraftII")
    assert sc2_path() == tmp_path / "StarCraftII"
    for wrong, said in (("nowhere", "is not a folder"), ("games", "holds no game")):
        monkeypatch.setenv("SC2PATH", str(tmp_path / wrong))
        with pytest.raises(ConfigError, match=said):
            sc2_path()


def test_the_version_is_the_newest_or_the_one_asked_for(path):
    def add(build):
        (path / "Versions" / f"Base{build}").mkdir()
        (path / "Versions" / f"Base{build}" / "SC2_x64").touch()

    (path / "Versions" / "Base65000").mkdir()  # without the game in it
    (path / "Versions" / "Base65000" / "notes.txt").touch()
    add(69232)
    assert game_version(path) == "4.10.0.75689"
    assert {game_version(path, v) for v in ("4.10", "4.10.0", "4.10.0.75689", "4")} == {"4.10.0.75689"}
    assert game_version(path, "4.6.2") == "4.6.2.69232"
    with pytest.raises(ConfigError, match="'4.1' is not installed in .*: 4.6.2 .build 69232., 4.10.0 .build 75689."):
        game_version(path, "4.1")
    with pytest.raises(ConfigError, match="'2.4.10' is not installed in .*what papers call 2.4.10 is 4.10"):
        game_version(path, "2.4.10")
    add(99998)
    assert game_version(path) == "unknown.99998"
    (path / "Versions" / "Base99999").mkdir()
    with pytest.raises(ConfigError, match="Base99999 holds no game, .* delete that folder, or give env_args"):
        game_version(path)
    assert game_version(path, "4.10") == "4.10.0.75689"


def test_a_game_without_an_interface_is_too_old(path):
    (path / "Versions" / "Base75689").rename(path / "Versions" / "Base50000")
    with pytest.raises(ConfigError, match="build 50000, which is too old"):
        game_version(path)


def test_maps_are_listed_and_a_missing_one_is_told_with_the_nearest(path):
    assert installed_maps(path) == ["2s3z", "32x32_flat", "3m"]
    check_map(path, "3m")
    with pytest.raises(ConfigError, match="'2s3zz' is not in .*; there is: 2s3z, 32x32_flat, 3m; did you mean '2s3z'"):
        check_map(path, "2s3zz")
    for file in (path / "Maps" / "SMAC_Maps").iterdir():
        file.unlink()
    with pytest.raises(ConfigError, match="holds no map: pip does not install them"):
        check_map(path, "3m")


def test_pypis_smac_is_told_from_the_game(tmp_path, monkeypatch):
    assert "not installed; install it with: pip install git+https" in package_problem("smac")
    (tmp_path / "smac").mkdir()
    (tmp_path / "smac" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert "is PyPI's, an AutoML tool and not the game; take it away with: pip uninstall smac" in package_problem(
        "smac"
    )
    assert "'smacv2' is not installed (the package 'smac' that is installed is PyPI's" in package_problem("smacv2")
    (tmp_path / "smac" / "env").mkdir()
    assert package_problem("smac") is None


def test_what_else_keeps_a_package_from_being_imported():
    assert import_problem("smacv2", ImportError("no pygame")).startswith("smacv2 cannot be imported: ImportError: no")


# ---- SMACv2's scenarios


def config(**changes):
    return SMACv2.Config(**env_args_of("sc2v2") | changes)


@pytest.mark.parametrize("name", SMACV2_SCENARIOS)
def test_scenarios_say_who_fights(name):
    map_name, capabilities = read_scenario(config(map_name=name))
    assert map_name == f"10gen_{name.split('_')[0]}"
    assert name.endswith(f"_{capabilities['n_units']}_vs_{capabilities['n_enemies']}")
    assert sum(capabilities["team_gen"]["weights"]) == pytest.approx(1)


OWN = """
env_args:
  map_name: 10gen_terran
  capability_config:
    n_units: 3
    n_enemies: 4
    team_gen: {dist_type: weighted_teams, unit_types: [marine, medivac], weights: [0.5, 0.5], observe: True}
    start_positions: {dist_type: reflect_position, map_x: 32, map_y: 32}
"""


def test_a_scenario_of_ones_own(tmp_path):
    (tmp_path / "own.yaml").write_text(OWN)
    map_name, capabilities = read_scenario(config(map_name=str(tmp_path / "own.yaml")))
    assert map_name == "10gen_terran" and capabilities["n_enemies"] == 4
    assert list(config(map_name=str(tmp_path / "own.yaml")).problems()) == []


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("10gen_terran", "10gen_teran", "is none of 10gen_protoss.*did you mean '10gen_terran'"),
        ("[marine, medivac]", "[marine, zealot]", "unit_types: 'zealot' is none of marine, marauder, medivac$"),
        ("map_x: 32", "map_x: 64", r"map_x, map_y are \[64.0, 32.0\], but the map is 32 cells wide"),
        ("map_x: 32", "map_x: wide", "is no scenario .ValueError"),
        ("n_units: 3", "n_units: many", "are not numbers of units"),
        ("    n_units: 3\n", "", "KeyError: 'n_units'"),
        ("capability_config", "conic_fov: True\n  capability_config", "give env_args.conic_fov=True"),
        (
            "capability_config",
            "conic_fow: True\n  capability_config",
            "unknown key 'conic_fow'; did you mean 'conic_fov'",
        ),
        ("env_args:", "- env_args:", "is no scenario"),
    ],
)
def test_a_scenario_that_is_none(old, new, said, tmp_path):
    (tmp_path / "own.yaml").write_text(OWN.replace(old, new))
    (problem,) = config(map_name=str(tmp_path / "own.yaml")).problems()
    assert re.search(said, problem, re.DOTALL), problem


def test_a_misspelt_scenario():
    (problem,) = config(map_name="teran_5_vs_5").problems()
    assert "did you mean 'terran_5_vs_5'" in problem


def test_scenarios_share_nothing():
    first, second = capability_config("terran", 5, 5), capability_config("terran", 5, 5)
    first["team_gen"]["exception_unit_types"].append("marine")
    assert second["team_gen"]["exception_unit_types"] == ["medivac"]
