"""Google Cloud Storage's JSON API, as much of it as TensorStore uses, on localhost and in memory.

https://cloud.google.com/storage/docs/json_api/v1/objects: get (of data, a range of it, or metadata), insert, list in
pages, and delete, each with its conditions. An object is there when all of its bytes have arrived, and not before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import parse_qs, unquote, urlsplit

PAGE = 5  # names a page of a list
MISSING, FAILED, NOT_MODIFIED = 404, 412, 304


class FakeStorage(ThreadingHTTPServer):
    """One bucket.

    Attributes:
      objects: generation and bytes of each object.
      log: method and name of every request that was answered, in order; a list has the name "".
      refused: from method and name to the status that a request is refused with, None to answer it.
      received: hears the name of an object when half of it has arrived; True where the rest will not.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, bucket: str):
        super().__init__(("localhost", 0), Handler)
        self.bucket = bucket
        self.objects: dict[str, tuple[int, bytes]] = {}
        self.log: list[tuple[str, str]] = []
        self.refused: Callable[[str, str], int | None] = lambda method, name: None
        self.received: Callable[[str], bool] = lambda name: False
        self.lock, self.generations = Lock(), 0

    @contextmanager
    def running(self) -> Iterator[dict[str, str]]:
        """Answers, and gives the environment that sends TensorStore there."""
        answering = Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        answering.start()
        address = f"http://localhost:{self.server_address[1]}"
        try:
            yield {"TENSORSTORE_GCS_HTTP_URL": address, "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token"}
        finally:
            self.shutdown()
            answering.join()
            self.server_close()

    def put(self, name: str, data: bytes) -> None:
        """Writes an object."""
        self.generations += 1
        self.objects[name] = self.generations, data

    def written(self) -> list[str]:
        """Names of the objects that were sent, in order."""
        return [name for method, name in self.log if method == "POST"]


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: FakeStorage
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:
        self._object(self._data) if self._named()[0] else self._listed()

    def do_POST(self) -> None:
        name, length = self._named()[0], int(self.headers["Content-Length"])
        body = self.rfile.read(length // 2)
        if self.server.received(name):
            self.close_connection = True
        else:
            body += self.rfile.read(length - length // 2)
            self._object(lambda name, query: self._inserted(name, body))

    def do_DELETE(self) -> None:
        self._object(self._deleted)

    def log_message(self, *_: object) -> None:
        pass

    def _named(self) -> tuple[str, dict[str, str]]:
        """The name of the object, "" of none, and the query."""
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        found = re.fullmatch(rf"(/upload)?/storage/v1/b/{self.server.bucket}/o(?:/(.+))?", parts.path)
        if not found:
            return "no such bucket", query
        return (query["name"] if found[1] else unquote(found[2] or "")), query

    def _object(self, answer: Callable[[str, dict[str, str]], None]) -> None:
        """Answers a request for one object, unless it is refused or its conditions do not hold."""
        name, query = self._named()
        with self.server.lock:
            self.server.log.append((self.command, name))
            status = self.server.refused(self.command, name)
            generation = self.server.objects.get(name, (0, b""))[0]
            if status or name == "no such bucket":
                self._refuse(status or MISSING)
            elif int(query.get("ifGenerationMatch", generation)) != generation:
                self._answer(FAILED)
            elif int(query.get("ifGenerationNotMatch", -1)) == generation:
                self._answer(NOT_MODIFIED)
            elif generation == 0 and self.command != "POST":
                self._answer(MISSING)
            else:
                answer(name, query)

    def _data(self, name: str, query: dict[str, str]) -> None:
        generation, data = self.server.objects[name]
        if query.get("alt") != "media":
            return self._answer(200, self._metadata(name))
        headers, status = {"x-goog-generation": str(generation)}, 200
        if asked := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
            first = int(asked[1]) if asked[1] else max(0, len(data) - int(asked[2]))
            last = min(int(asked[2]) if asked[1] and asked[2] else len(data) - 1, len(data) - 1)
            if first > last:
                return self._answer(416)
            headers["Content-Range"], status = f"bytes {first}-{last}/{len(data)}", 206
            data = data[first : last + 1]
        self._answer(status, data, headers)

    def _inserted(self, name: str, body: bytes) -> None:
        self.server.put(name, body)
        self._answer(200, self._metadata(name))

    def _deleted(self, name: str, query: dict[str, str]) -> None:
        del self.server.objects[name]
        self._answer(204)

    def _listed(self) -> None:
        query = self._named()[1]
        with self.server.lock:
            self.server.log.append(("GET", ""))
            if status := self.server.refused("GET", ""):
                return self._refuse(status)
            first, after = query.get("pageToken", query.get("startOffset", "")), query.get("endOffset")
            names = sorted(name for name in self.server.objects if name >= first and (not after or name < after))
            items = [json.loads(self._metadata(name)) for name in names[:PAGE]]
            page = {"items": items} | ({"nextPageToken": names[PAGE]} if len(names) > PAGE else {})
            self._answer(200, json.dumps(page).encode())

    def _metadata(self, name: str) -> bytes:
        generation, data = self.server.objects[name]
        record = {"name": name, "bucket": self.server.bucket, "generation": str(generation), "size": str(len(data))}
        return json.dumps(record).encode()

    def _refuse(self, status: int) -> None:
        self._answer(status, json.dumps({"error": {"code": status, "message": "refused"}}).encode())

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
