"""A MongoDB server for tests: real pymongo talks to it on loopback, mongomock keeps the documents.

Speaks OP_MSG, and OP_QUERY for pymongo's first handshake, and knows the commands that Sacred's
observer and GridFS send. A reply holds the whole result, so no open cursors. With `users` it asks for a password, by
SCRAM-SHA-256.
"""

import base64
import hashlib
import hmac
import socket
import socketserver
import struct
import threading
import time
from contextlib import suppress

import bson
import mongomock

HEADER = struct.Struct("<iiii")  # length, request id, id answered to, opcode
OP_REPLY, OP_QUERY, OP_MSG = 1, 2004, 2013
FOR_ANYBODY = ("hello", "ismaster", "isMaster", "saslStart", "saslContinue", "endSessions")
COMMANDS = ("insert", "update", "delete", "createIndexes", "listIndexes", "aggregate", "find")  # of a collection
SALT, ITERATIONS = b"salt for the tests", 4096
HELLO = {
    "ismaster": True,
    "isWritablePrimary": True,
    "helloOk": True,
    "minWireVersion": 0,
    "maxWireVersion": 21,  # MongoDB 7
    "maxBsonObjectSize": 16 * 1024**2,
    "maxMessageSizeBytes": 48_000_000,
    "maxWriteBatchSize": 100_000,
}


def free_port():
    """A port of 127.0.0.1 on which nothing listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class WireMongo(socketserver.ThreadingTCPServer):
    """A server on 127.0.0.1:`port`. `client`: a mongomock client on its documents.

    `delay`: seconds before each answer, to play a slow or a hung server. `lost`: the (command, collection) whose
    next answer does not get through, though it is carried out. `garbled`: those whose next answer cannot be read.
    `refused`: update(name of a metric) -> whether the update of it fails, with `code`. `unwilling`: (code, message) of
    the refusal of every command, or None. `users`: {name: password}; None: anybody may do anything. `updates`: the
    metrics that an update was asked for, one by one.
    `kill()` closes the port and the connections, `hang_up()` the connections.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), _Connection)
        self.url = f"mongodb://127.0.0.1:{self.server_address[1]}"
        self.client = mongomock.MongoClient()
        self.delay = 0
        self.lost, self.garbled = [], []
        self.refused, self.code = lambda name: False, 28
        self.unwilling = self.users = None
        self.updates = []
        self.lock = threading.Lock()  # mongomock's documents, many connections
        self.connections = set()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def kill(self):
        self.shutdown()
        self.server_close()
        self.hang_up()

    def hang_up(self):
        for connection in list(self.connections):
            with suppress(OSError):  # the client left by itself
                connection.shutdown(socket.SHUT_RDWR)

    def __exit__(self, *exception):
        self.kill()


class Refusal(Exception):
    """A command is refused: code, message."""


class _Connection(socketserver.StreamRequestHandler):
    def handle(self):
        self.server.connections.add(self.connection)
        self.login = _Login(self.server)
        try:
            while len(header := self.rfile.read(HEADER.size)) == HEADER.size:
                length, request, _, opcode = HEADER.unpack(header)
                if not HEADER.size < length <= HELLO["maxMessageSizeBytes"]:
                    return
                body = self.rfile.read(length - HEADER.size)
                try:
                    command = _from_op_msg(body) if opcode == OP_MSG else _from_op_query(body)
                    name = next(iter(command))
                except Exception:  # it was garbled on its way
                    return
                time.sleep(self.server.delay)
                answer = bson.encode(_answer(self.server, self.login, command))
                if (name, command[name]) in self.server.lost:
                    self.server.lost.remove((name, command[name]))
                    return  # closes the connection
                if (name, command[name]) in self.server.garbled:
                    self.server.garbled.remove((name, command[name]))
                    answer = answer[:-1] + b"!"  # in the place of the zero that ends a document
                if opcode == OP_MSG:
                    reply, payload = OP_MSG, struct.pack("<iB", 0, 0) + answer
                else:  # flags, cursor id, starting from, number returned
                    reply, payload = OP_REPLY, struct.pack("<iqii", 8, 0, 0, 1) + answer
                self.wfile.write(HEADER.pack(HEADER.size + len(payload), 0, request, reply) + payload)
        except OSError:
            pass  # the client left, or the server was killed
        finally:
            self.server.connections.discard(self.connection)


def _from_op_query(body):
    start = body.index(b"\0", 4) + 1 + 8  # flags; collection; numbers to skip and to return
    return bson.decode(body[start:])


def _from_op_msg(body):
    """The command, with the document sequences that pymongo sends beside it put into it."""
    command, at = {}, 4  # flags
    while at < len(body):
        kind, size = struct.unpack_from("<Bi", body, at)
        section = body[at + 1 : at + 1 + size]
        if kind == 0:
            command = bson.decode(section) | command
        else:
            end = section.index(b"\0", 4)
            command[section[4:end].decode()] = bson.decode_all(section[end + 1 :])
        at += 1 + size
    return command


def _answer(server, login, command):
    name = next(iter(command))  # as the protocol demands
    with server.lock:
        try:
            if server.users is not None and not login.done and name not in FOR_ANYBODY:
                raise Refusal(13, f"command {name} requires authentication")
            if server.unwilling and name not in FOR_ANYBODY:
                raise Refusal(*server.unwilling)
            if name in ("saslStart", "saslContinue"):
                return {"ok": 1, "conversationId": 1, **login.step(name, command["payload"])}
            return {"ok": 1, **_run(server, name, command)}
        except Refusal as refusal:
            return {"ok": 0, "code": refusal.args[0], "errmsg": refusal.args[1]}
        except Exception as error:
            return {"ok": 0, "errmsg": f"{name}: {error!r}", "code": 59}


class _Login:
    """The server's side of SCRAM-SHA-256 (RFC 5802, RFC 7677) on one connection. done: whether it has succeeded."""

    def __init__(self, server):
        self.server, self.done = server, False

    def step(self, name, payload):
        if name == "saslStart":
            self.bare = payload[3:]  # behind "n,,"
            self.said = dict(part.split(b"=", 1) for part in self.bare.split(b","))
            salt = base64.b64encode(SALT)
            self.first = b"r=%s,s=%s,i=%d" % (self.said[b"r"] + b"more", salt, ITERATIONS)
            return {"done": False, "payload": self.first}
        user = self.said[b"n"].replace(b"=2C", b",").replace(b"=3D", b"=").decode()
        password = self.server.users.get(user)
        without_proof, _, proof = payload.partition(b",p=")
        salted = hashlib.pbkdf2_hmac("sha256", (password or "").encode(), SALT, ITERATIONS)
        text = b",".join((self.bare, self.first, without_proof))
        key = _mac(salted, b"Client Key")
        signature = _mac(hashlib.sha256(key).digest(), text)
        if password is None or bytes(a ^ b for a, b in zip(key, signature)) != base64.b64decode(proof):
            raise Refusal(18, "Authentication failed.")
        self.done = True
        return {"done": True, "payload": b"v=" + base64.b64encode(_mac(_mac(salted, b"Server Key"), text))}


def _mac(key, text):
    return hmac.new(key, text, "sha256").digest()


def _run(server, name, command):
    if name in ("hello", "ismaster", "isMaster"):
        asked = "saslSupportedMechs" in command
        return HELLO | ({"saslSupportedMechs": ["SCRAM-SHA-256"]} if asked else {})
    if name in ("endSessions", "ping"):
        return {}
    if name not in COMMANDS:
        raise Refusal(59, f"no such command: {name!r}")
    namespace = f"{command['$db']}.{command[name]}"
    collection = server.client[command["$db"]][command[name]]
    if name == "insert":
        return _insert(collection, command["documents"])
    if name == "update":
        return _update(collection, command["updates"], server)
    if name == "delete":
        return {"n": sum(_delete(collection, **one) for one in command["deletes"])}
    if name == "createIndexes":
        return {}
    if name == "listIndexes":
        found = [{"v": 2, "key": {"_id": 1}, "name": "_id_"}]
    elif name == "aggregate":
        found = list(collection.aggregate(command["pipeline"]))
    else:
        cursor = collection.find(command.get("filter"), command.get("projection"))
        if "sort" in command:
            cursor = cursor.sort(list(command["sort"].items()))
        found = list(cursor.limit(abs(command.get("limit", 0))))
    return {"cursor": {"id": bson.Int64(0), "ns": namespace, "firstBatch": found}}


def _insert(collection, documents):
    for index, document in enumerate(documents):
        try:
            collection.insert_one(document)
        except mongomock.DuplicateKeyError as error:
            return {"n": index, "writeErrors": [{"index": index, "code": 11000, "errmsg": str(error)}]}
    return {"n": len(documents)}


def _delete(collection, q, limit):
    return (collection.delete_one(q) if limit else collection.delete_many(q)).deleted_count


def _update(collection, updates, server):
    matched, upserted, errors = 0, [], []
    for index, one in enumerate(updates):
        if "name" in one["q"]:
            server.updates.append(one["q"]["name"])
        if server.refused(one["q"].get("name")):
            errors.append({"index": index, "code": server.code, "errmsg": "refused"})
            continue
        change = collection.update_one if next(iter(one["u"])).startswith("$") else collection.replace_one
        result = change(one["q"], one["u"], upsert=one.get("upsert", False))
        matched += result.matched_count
        if result.upserted_id is not None:
            upserted.append({"index": index, "_id": result.upserted_id})
    answer = {"n": matched + len(upserted), "nModified": matched}
    return answer | ({"upserted": upserted} if upserted else {}) | ({"writeErrors": errors} if errors else {})
