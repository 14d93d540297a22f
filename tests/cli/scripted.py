"""A real WebSocket server on the admin channel that answers by a script."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

Answer = dict[str, Any] | Callable[[dict[str, Any]], dict[str, Any] | int]
TOKEN = "a-good-token-of-the-admin-channel"


class Scripted:
    """Answers `type` with the fields in `answers`; a callable may also give a close code."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[dict[str, Any]] = []
        self.hello: dict[str, Any] = {}
        self.path = ""
        self.subprotocol: str | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def talk(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.path, self.subprotocol = socket.request.path, socket.subprotocol
        try:
            for frame in socket:
                self.answer(socket, json.loads(frame))
        except ConnectionClosed:
            pass

    def answer(self, socket: ServerConnection, message: dict[str, Any]) -> None:
        kind, ref = message["type"], message["ref"]
        if kind == "hello":
            self.hello = message
            if message["token"] != TOKEN:
                error = {"type": "error", "ref": ref, "code": "unauthorized", "message": "No such token."}
                socket.send(json.dumps(error))
                socket.close(4500)
                return
            socket.send(json.dumps({"type": "welcome", "ref": ref, "role": "admin", "protocol": 1}))
            return

        self.asked.append({name: value for name, value in message.items() if name not in ("type", "ref")})
        told = self.answers[kind]
        fields = told(message) if callable(told) else told

        if isinstance(fields, int):
            socket.close(fields)
        else:
            socket.send(json.dumps({"type": "ok", "ref": ref, **fields}))


@contextmanager
def scripted(tls: ssl.SSLContext | None = None) -> Iterator[Scripted]:
    script = Scripted()
    with serve(script.talk, "127.0.0.1", 0, subprotocols=["coordinator.v1"], ssl=tls) as server:  # type: ignore[list-item]
        script.port = server.socket.getsockname()[1]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield script
        finally:
            server.shutdown()
            thread.join()


def error(code: str, message: str, **more: Any) -> dict[str, Any]:
    return {"type": "error", "code": code, "message": message, **more}
