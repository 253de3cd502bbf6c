"""A stand-in for StarCraft II: it speaks its protocol and plays simple battles on 3m, 2s3z and SMACv2's map.

    python stand_in_game.py -listen 127.0.0.1 -port 15000 ...

A websocket server of one client, with s2clientprotocol's messages. Units walk, shoot and die; on SMAC's maps new ones
come when all are dead, as the maps' trigger has it. It needs the packages of requirements/sc2.txt.

Faults: each game takes one file from the folder STAND_IN_FAULTS, the first by name. It holds `KIND REQUEST COUNT`: at
the COUNT-th request of that name it does as KIND says: crash, hang, close the connection, garble the answer, answer
with an error or with nothing (blank), or refuse to create units from then on. The request `launch` is the start.
"""

import base64
import hashlib
import math
import os
import random
import socket
import struct
import sys
import time
from pathlib import Path

from s2clientprotocol import sc2api_pb2 as sc

SIZE = 32  # cells of a side
UNITS = {  # type of unit: health, shield, range, damage
    "baneling": (30, 0, 1, 16), "colossus": (200, 150, 7, 20), "hydralisk": (90, 0, 5, 12),
    "marauder": (125, 0, 6, 10), "marine": (45, 0, 5, 6), "medivac": (150, 0, 4, 0), "stalker": (80, 80, 6, 13),
    "zealot": (100, 50, 1, 16), "zergling": (35, 0, 1, 5),
}  # fmt: skip
ENEMY_TYPE = {
    "baneling": 9, "colossus": 4, "hydralisk": 107, "marauder": 51, "marine": 48, "medivac": 54, "stalker": 74,
    "zealot": 73, "zergling": 105,
}  # fmt: skip
N_TYPES = 2000  # known to the game; the last nine are the agents'
AGENT_TYPE = {name: N_TYPES - len(UNITS) + i for i, name in enumerate(UNITS)}
NAME = {type_: name for types in (ENEMY_TYPE, AGENT_TYPE) for name, type_ in types.items()}
MAPS = {"3m": ["marine"] * 3, "2s3z": ["stalker"] * 2 + ["zealot"] * 3}
ATTACK, MOVE, STOP, HEAL = 23, 16, 4, 386  # abilities


class Unit:
    def __init__(self, tag, type_, owner, x, y):
        self.tag, self.type, self.owner, self.x, self.y = tag, type_, owner, x, y
        self.health_max, self.shield_max, self.range, self.damage = UNITS[NAME[type_]]
        self.health, self.shield, self.cooldown, self.order = self.health_max, self.shield_max, 0, None

    def distance(self, other):
        return math.hypot(self.x - other.x, self.y - other.y)

    def walk(self, x, y, speed=0.2):
        far = math.hypot(x - self.x, y - self.y)
        if far > speed:
            x, y = self.x + speed * (x - self.x) / far, self.y + speed * (y - self.y) / far
        self.x, self.y = min(max(x, 0), SIZE - 0.1), min(max(y, 0), SIZE - 0.1)


class Battle:
    """The state of a game."""

    def __init__(self):
        self.units, self.loop, self.tags, self.refuses = {}, 0, 0, False

    def create(self, request):
        self.rng = random.Random(request.random_seed)
        self.team = MAPS.get(Path(request.local_map.map_path).stem)  # None: units come by debug commands

    def spawn(self, type_, owner, x, y):
        if not self.refuses:
            self.tags += 1
            self.units[self.tags] = Unit(self.tags, type_, owner, x, y)

    def step(self, loops):
        for _ in range(loops):
            self.loop += 1
            if not self.units and self.team:
                for owner, types, x in ((1, AGENT_TYPE, 9), (2, ENEMY_TYPE, 23)):
                    for i, name in enumerate(self.team):
                        self.spawn(types[name], owner, x + self.rng.random(), 12 + 2 * i)
                continue
            for unit in list(self.units.values()):
                self.act(unit)
            self.units = {tag: unit for tag, unit in self.units.items() if unit.health > 0}

    def act(self, unit):
        """An agent's unit obeys, an enemy's attacks the nearest."""
        unit.cooldown = max(0, unit.cooldown - 1)
        ability, target = unit.order or (None, None)
        if unit.owner == 2:
            others = [u for u in self.units.values() if u.owner == 1 and u.health > 0]
            target = min(others, key=unit.distance, default=None)
            ability = ATTACK if target else None
        elif ability in (ATTACK, HEAL):
            target = self.units.get(target)
        if ability == MOVE:
            unit.walk(*target)
        elif ability in (ATTACK, HEAL) and target and target.health > 0:
            if unit.distance(target) > unit.range:
                unit.walk(target.x, target.y)
            elif not unit.cooldown:
                unit.cooldown = 15
                self.hit(target, unit.damage + self.rng.random() if ability == ATTACK else -5)

    def hit(self, unit, damage):
        through = max(0, damage - unit.shield)
        unit.shield = max(0, unit.shield - max(0, damage))
        unit.health = min(unit.health_max, unit.health - (through if damage > 0 else damage))


class Game:
    """Answers requests."""

    def __init__(self, fault):
        self.battle, self.status = Battle(), sc.launched
        self.fault, self.counts = fault, {}

    def fails(self, name):
        """What goes wrong with this request, or None."""
        self.counts[name] = self.counts.get(name, 0) + 1
        if not self.fault or self.fault[1:] != [name, str(self.counts[name])]:
            return None
        kind = self.fault[0]
        print(f"stand-in: {kind} at {name} {self.counts[name]}", flush=True)
        if kind == "crash":
            print("stand-in: out of imaginary memory", file=sys.stderr, flush=True)
            os._exit(11)
        if kind == "hang":
            time.sleep(10**6)
        if kind == "refuse":
            self.battle.refuses = True
        return kind

    def answer(self, request):
        name = request.WhichOneof("request")
        response = sc.Response(id=request.id)
        kind = self.fails(name)
        if kind == "error":
            response.error.append("stand-in: this request is refused")
        elif kind != "blank":
            getattr(self, name, lambda *_: None)(getattr(request, name), getattr(response, name))
        getattr(response, name).SetInParent()
        response.status = self.status
        return response

    def create_game(self, request, response):
        self.battle.create(request)
        self.status = sc.init_game

    def join_game(self, request, response):
        self.status, response.player_id = sc.in_game, 1
        self.battle.step(1)

    def game_info(self, request, response):
        raw = response.start_raw
        raw.map_size.x = raw.map_size.y = raw.playable_area.p1.x = raw.playable_area.p1.y = SIZE
        raw.playable_area.p0.x = raw.playable_area.p0.y = 0
        for grid, bits in ((raw.pathing_grid, 1), (raw.terrain_height, 8)):
            grid.bits_per_pixel, grid.size.x, grid.size.y = bits, SIZE, SIZE
            grid.data = b"\xff" * (SIZE * SIZE * bits // 8)

    def data(self, request, response):
        for i in range(N_TYPES):
            response.units.add(unit_id=i, name=NAME.get(i, ""), available=True)

    def observation(self, request, response):
        response.observation.game_loop = self.battle.loop
        for u in self.battle.units.values():
            unit = response.observation.raw_data.units.add(
                tag=u.tag, unit_type=u.type, owner=u.owner, health=u.health, health_max=u.health_max, shield=u.shield,
                shield_max=u.shield_max, weapon_cooldown=u.cooldown, energy=50,
            )  # fmt: skip
            unit.pos.x, unit.pos.y, unit.pos.z = u.x, u.y, 0

    def action(self, request, response):
        for action in request.actions:
            command = action.action_raw.unit_command
            point = command.target_world_space_pos
            target = (point.x, point.y) if command.ability_id == MOVE else command.target_unit_tag
            for tag in command.unit_tags:
                if tag in self.battle.units:
                    self.battle.units[tag].order = None if command.ability_id == STOP else (command.ability_id, target)

    def step(self, request, response):
        self.battle.step(request.count or 1)

    def debug(self, request, response):
        for command in request.debug:
            for tag in command.kill_unit.tag:
                self.battle.units.pop(tag, None)
            if command.HasField("create_unit"):
                new = command.create_unit
                self.battle.spawn(new.unit_type, new.owner, new.pos.x, new.pos.y)

    def save_replay(self, request, response):
        response.data = b"a replay"


# ---- the websocket (RFC 6455), as far as pysc2 uses it


def accept(server):
    client, _ = server.accept()
    header = b""
    while b"\r\n\r\n" not in header:
        header += client.recv(4096)
    name = next(line for line in header.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
    magic = name.split(b":")[1].strip() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    token = base64.b64encode(hashlib.sha1(magic).digest())
    upgrade = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    client.sendall(upgrade + b"Sec-WebSocket-Accept: " + token + b"\r\n\r\n")
    return client


def receive(client):
    """The payload of the next frame, None at the end."""
    head = exactly(client, 2)
    if not head or head[0] & 15 == 8:
        return None
    length = head[1] & 127
    if length > 125:
        length = int.from_bytes(exactly(client, 2 if length == 126 else 8), "big")
    mask, payload = exactly(client, 4), exactly(client, length)
    long_mask = int.from_bytes((mask * (length // 4 + 1))[:length], "big")
    return (int.from_bytes(payload, "big") ^ long_mask).to_bytes(length, "big")


def exactly(client, n):
    data = b""
    while len(data) < n:
        more = client.recv(n - len(data))
        if not more:
            return b""
        data += more
    return data


def send(client, payload):
    n = len(payload)
    length = bytes([n]) if n < 126 else b"\x7e" + struct.pack(">H", n) if n < 65536 else b"\x7f" + struct.pack(">Q", n)
    client.sendall(b"\x82" + length + payload)


def take_fault():
    """The words of the first file in STAND_IN_FAULTS, which is gone after that."""
    for file in sorted(Path(os.environ.get("STAND_IN_FAULTS", "/nowhere")).glob("*")):
        try:
            taken = file.rename(file.parent.parent / f"taken-{os.getpid()}")
            return taken.read_text().split()
        except FileNotFoundError:  # another game was faster
            continue
    return None


def main(words):
    game = Game(take_fault())
    print("stand-in: ready", flush=True)
    game.fails("launch")
    with socket.create_server((words["-listen"], int(words["-port"]))) as server:
        client = accept(server)
    while message := receive(client):
        request = sc.Request.FromString(message)
        if request.HasField("quit"):
            return
        response = game.answer(request)
        kind = game.fault and game.counts.get(game.fault[1]) == int(game.fault[2]) and game.fault[0]
        if kind == "close" and request.HasField(game.fault[1]):
            client.close()
            time.sleep(10**6)
        garbled = kind == "garble" and request.HasField(game.fault[1])
        send(client, b"\xff\xfe nonsense" if garbled else response.SerializeToString())


if __name__ == "__main__":
    main(dict(zip(sys.argv[1::2], sys.argv[2::2])))
