"""docker/install_sc2.sh against a server of our own, with small archives in place of the game and the maps."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from zlib import crc32

import pytest
from command import ROOT, files

SCRIPT = ROOT / "docker" / "install_sc2.sh"
GAME = {
    "StarCraftII/Versions/Base75689/SC2_x64": os.urandom(300_000),
    "StarCraftII/SC2Data/data/a": b"data",
    "StarCraftII/Maps/Melee/Simple64.SC2Map": b"melee",
}
MAPS = {"3m.SC2Map": b"three", "32x32_flat.SC2Map": b"flat"}
INSTALLED = sorted([
    "Versions/Base75689/SC2_x64", "SC2Data/data/a", "Maps/Melee/Simple64.SC2Map",
    "Maps/SMAC_Maps/3m.SC2Map", "Maps/SMAC_Maps/32x32_flat.SC2Map", "Maps/SMAC_Maps/.sha256",
])  # fmt: skip

pytestmark = pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("unzip")), reason="needs curl and unzip, as the script does"
)


class Server(ThreadingHTTPServer):
    """Serves `content` {path: bytes}; goes on in the middle of a file where `ranges`. `cut`: {path: bytes after
    which the connection is dropped, once}. `asked`: [(method, path, range)]."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.cut, self.asked, self.ranges, self.slow = {}, {}, [], True, 0
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def url(self, path):
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"

    def handle_error(self, request, client_address):  # the client was killed
        pass


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self):
        self.answer("HEAD")

    def do_GET(self):
        self.answer("GET")

    def answer(self, method):
        name, wanted = self.path.lstrip("/"), self.headers.get("Range")
        self.server.asked.append((method, name, wanted))
        data = self.server.content.get(name)
        if data is None:
            return self.send_error(404)
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and self.server.ranges else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if method == "GET":
            self.wfile.write(data[start : self.server.cut.pop(name, None)])
            self.wfile.flush()
            time.sleep(self.server.slow)

    def log_message(self, *_):
        pass


def archive(path, content):
    with zipfile.ZipFile(path, "w") as z:
        for name, data in content.items():
            z.writestr(name, data)
    return path.read_bytes()


def encrypted(data, password):
    """`data` in PKWARE's traditional cipher, which unzip -P opens."""
    keys = [0x12345678, 0x23456789, 0x34567890]

    def update(byte):
        keys[0] = crc32(bytes([byte]), keys[0] ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
        keys[1] = ((keys[1] + (keys[0] & 0xFF)) * 134775813 + 1) & 0xFFFFFFFF
        keys[2] = crc32(bytes([keys[1] >> 24]), keys[2] ^ 0xFFFFFFFF) ^ 0xFFFFFFFF

    def encrypt(byte):
        k = (keys[2] | 2) & 0xFFFF
        update(byte)
        return byte ^ ((k * (k ^ 1)) >> 8 & 0xFF)

    for byte in password:
        update(byte)
    return bytes(encrypt(byte) for byte in data)


@pytest.fixture
def server(tmp_path):
    server = Server()
    server.content = {"game.zip": archive(tmp_path / "g", GAME), "maps.zip": archive(tmp_path / "m", MAPS)}
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def install(server, tmp_path):
    """install(*options, **environment): the finished process. install.environment, for one that is not waited for."""

    def call(*options, **changes):
        return subprocess.run(
            [SCRIPT, *options], env=call.environment | changes, capture_output=True, text=True, timeout=60
        )

    call.environment = os.environ | {
        "SC2PATH": str(tmp_path / "sc2"), "SC2_ACCEPT_LICENCE": "yes", "SC2_WAIT": "0",
        "SC2_GAME_URL": server.url("game.zip"), "SC2_MAPS_URL": server.url("maps.zip"),
        "SC2_GAME_SHA256": "", "SC2_MAPS_SHA256": hashlib.sha256(server.content["maps.zip"]).hexdigest(),
    }  # fmt: skip
    return call


def gets(server):
    return [name for method, name, _ in server.asked if method == "GET"]


def test_it_installs_the_game_and_the_maps(install, server, tmp_path):
    run = install()
    assert run.returncode == 0, run.stderr
    assert files(tmp_path / "sc2") == INSTALLED and os.access(tmp_path / "sc2/Versions/Base75689/SC2_x64", os.X_OK)
    assert (tmp_path / "sc2/Versions/Base75689/SC2_x64").read_bytes() == GAME["StarCraftII/Versions/Base75689/SC2_x64"]
    assert hashlib.sha256(server.content["game.zip"]).hexdigest() in run.stdout  # to be pinned next time
    assert "License" in run.stdout and "export SC2PATH=" in run.stdout


def test_a_second_time_downloads_nothing(install, server, tmp_path):
    assert install().returncode == 0
    server.asked.clear()
    (tmp_path / "sc2/Maps/SMAC_Maps/mine.SC2Map").touch()
    run = install()
    assert run.returncode == 0 and run.stdout.count("there already") == 2 and server.asked == []
    assert (tmp_path / "sc2/Maps/SMAC_Maps/mine.SC2Map").exists()


@pytest.mark.parametrize("fault", ["all gone", "one gone", "one damaged"])
def test_maps_alone_are_added_to_a_game_that_is_there(fault, install, server, tmp_path):
    assert install().returncode == 0
    maps = tmp_path / "sc2/Maps/SMAC_Maps"
    if fault == "all gone":
        shutil.rmtree(maps)
    elif fault == "one gone":
        (maps / "3m.SC2Map").unlink()
    else:
        (maps / "3m.SC2Map").write_bytes(b"torn")
    server.asked.clear()
    assert install().returncode == 0 and gets(server) == ["maps.zip"] and files(tmp_path / "sc2") == INSTALLED
    assert (maps / "3m.SC2Map").read_bytes() == MAPS["3m.SC2Map"]


@pytest.mark.parametrize("folder, code", [("SMAC_Maps/", 0), (None, 1)])
def test_an_archive_of_maps_in_a_folder_and_one_without_maps(folder, code, install, server, tmp_path):
    content = {"readme": b""} if folder is None else {folder + name: data for name, data in MAPS.items()}
    server.content["other.zip"] = archive(tmp_path / "o", content)
    sum_ = hashlib.sha256(server.content["other.zip"]).hexdigest()
    run = install(SC2_MAPS_URL=server.url("other.zip"), SC2_MAPS_SHA256=sum_)
    assert run.returncode == code
    if code == 0:
        assert files(tmp_path / "sc2") == INSTALLED
    else:
        assert "other.zip holds no map" in run.stderr and not (tmp_path / "sc2/Maps/SMAC_Maps").exists()


@pytest.mark.parametrize("consent", ["", "no", "true"])
def test_without_consent_nothing_happens(consent, install, server, tmp_path):
    run = install(SC2_ACCEPT_LICENCE=consent)
    assert run.returncode == 2 and "AI_AND_MACHINE_LEARNING_LICENSE" in run.stderr
    assert run.stderr.splitlines()[-1] == "error: the licence is not accepted"
    assert server.asked == [] and not (tmp_path / "sc2").exists()


def test_consent_as_an_option_and_wrong_options(install, server):
    assert install("--accept-licence", SC2_ACCEPT_LICENCE="").returncode == 0
    run = install("--acept-licence")
    assert run.returncode == 2 and "unknown option --acept-licence" in run.stderr
    run = install("--help", SC2_ACCEPT_LICENCE="")
    assert run.returncode == 0 and "exit status" in run.stdout


def test_a_cut_download_goes_on_where_it_stopped(install, server):
    server.cut["game.zip"] = 100_000
    run = install()
    assert run.returncode == 0, run.stderr
    assert ("GET", "game.zip", "bytes=100000-") in server.asked and gets(server).count("game.zip") == 2


def test_a_killed_install_goes_on_where_it_stopped(install, server, tmp_path):
    server.cut["game.zip"], server.slow = 100_000, 30
    process = subprocess.Popen([SCRIPT], env=install.environment, start_new_session=True, stdout=subprocess.DEVNULL)
    part = tmp_path / "sc2/.install/game.zip"
    end = time.monotonic() + 20
    while not part.exists() or part.stat().st_size < 50_000:  # curl writes in blocks
        assert time.monotonic() < end
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    there, server.slow = part.stat().st_size, 0
    run = install()
    assert run.returncode == 0 and ("GET", "game.zip", f"bytes={there}-") in server.asked
    assert files(tmp_path / "sc2") == INSTALLED


def test_a_server_that_cannot_go_on_in_the_middle(install, server, tmp_path):
    server.cut["game.zip"], server.ranges = 100_000, False
    run = install()
    assert run.returncode == 0 and files(tmp_path / "sc2") == INSTALLED, run.stderr


def test_a_server_that_keeps_failing(install, server, tmp_path):
    game = server.content.pop("game.zip")
    run = install(SC2_TRIES="3")
    assert run.returncode == 1 and len(server.asked) == 3
    assert re.search(r"^error: http\S+/game.zip: not to be had \(curl's status 22\)", run.stderr, re.MULTILINE)
    server.content["game.zip"] = game
    assert install().returncode == 0 and files(tmp_path / "sc2") == INSTALLED


def test_what_a_server_that_is_away_left_is_kept(install, server, tmp_path):
    part = tmp_path / "sc2/.install/game.zip"
    part.parent.mkdir(parents=True)
    part.write_bytes(server.content["game.zip"][:1000])
    run = install(SC2_TRIES="1", SC2_GAME_URL="http://127.0.0.1:1/game.zip")
    assert run.returncode == 1 and "goes on from 1000 bytes" in run.stderr
    assert install().returncode == 0 and ("GET", "game.zip", "bytes=1000-") in server.asked


@pytest.mark.parametrize("which", ["GAME", "MAPS"])
def test_another_checksum(which, install, tmp_path):
    run = install(**{f"SC2_{which}_SHA256": "0" * 64})
    assert run.returncode == 1 and f"{which.lower()}.zip: the SHA-256 is not {'0' * 64}" in run.stderr
    assert not (tmp_path / f"sc2/.install/{which.lower()}.zip").exists()
    assert install().returncode == 0 and files(tmp_path / "sc2") == INSTALLED


def test_a_longer_file_that_is_there_is_another_archive(install, server, tmp_path):
    part = tmp_path / "sc2/.install/game.zip"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"0" * (len(server.content["game.zip"]) + 1))
    assert install().returncode == 0 and files(tmp_path / "sc2") == INSTALLED


@pytest.mark.parametrize("damage", ["flipped", "no archive", "no game"])
def test_an_archive_that_is_not_the_game(damage, install, server, tmp_path):
    good = server.content["game.zip"]
    server.content["game.zip"] = {
        "flipped": good[:1000] + bytes([good[1000] ^ 1]) + good[1001:],  # unzip's CRC-32 tells
        "no archive": b"<html>sign in</html>",
        "no game": archive(tmp_path / "other", {"StarCraftII/readme": b""}),
    }[damage]
    run = install()
    said = "holds no StarCraftII/Versions/Base75689/SC2_x64" if damage == "no game" else "is damaged"
    assert run.returncode == 1 and said in run.stderr and not (tmp_path / "sc2/Versions").exists()
    server.content["game.zip"] = good
    assert install().returncode == 0 and files(tmp_path / "sc2") == INSTALLED


def test_the_archive_opens_with_blizzards_password(install, server, tmp_path):
    """A member encrypted by hand: 12 bytes of header, the last of which is the high byte of the CRC-32."""
    name, data = "StarCraftII/Versions/Base75689/SC2_x64", b"the game"
    plain = zipfile.ZipInfo(name)
    with zipfile.ZipFile(tmp_path / "e", "w") as z:
        z.writestr(plain, b"0" * (len(data) + 12))
    raw = bytearray((tmp_path / "e").read_bytes())
    crc = crc32(data)
    body = encrypted(bytes(11) + bytes([crc >> 24]) + data, b"iagreetotheeula")
    at = raw.index(b"0" * 20)
    raw[at : at + len(body)] = body
    for header, flags, sums in ((0, 6, 14), (raw.index(b"PK\1\2"), 8, 16)):
        raw[header + flags] |= 1
        raw[header + sums : header + sums + 4] = crc.to_bytes(4, "little")
        raw[header + sums + 8 : header + sums + 12] = len(data).to_bytes(4, "little")
    server.content["game.zip"] = bytes(raw)
    run = install()
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "sc2/Versions/Base75689/SC2_x64").read_bytes() == data


def test_another_version_is_not_mixed_in(install, server, tmp_path):
    other = tmp_path / "sc2/Versions/Base69232/SC2_x64"
    other.parent.mkdir(parents=True)
    other.touch()
    run = install()
    assert run.returncode == 1 and "holds another version" in run.stderr and server.asked == [] and other.exists()


def test_a_folder_that_cannot_be_made(install):
    run = install(SC2PATH="/proc/sc2")
    assert run.returncode == 1 and run.stderr == "error: SC2PATH=/proc/sc2 cannot be made\n"


def test_what_it_needs_and_is_not_there(install, tmp_path):
    (tmp_path / "bin").mkdir()
    for name in ("bash", "cat", "env", "mkdir"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    run = install(PATH=str(tmp_path / "bin"))
    assert run.returncode == 1 and "curl is not installed; install it with: apt-get install curl" in run.stderr
