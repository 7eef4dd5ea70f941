"""nginx in front of a registry, as people put it there: TLS ends at it."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path
from typing import Self

from tests.support.peers import find

READY_WITHIN = 30.0  # seconds
_CONFIG = """\
daemon off;
worker_processes 1;
user root;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/bodies;
  proxy_temp_path {folder}/proxied;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 0;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    proxy_request_buffering off;
    proxy_http_version 1.1;
{locations}
  }}
}}
"""


class Nginx:
    """Serves TLS on a free port of 127.0.0.1 while used as a context manager; `host` is where.

    `locations` are nginx's, like `location /v2/ { proxy_pass http://127.0.0.1:5000; }`.
    """

    def __init__(self, folder: Path, certificate: Path, key: Path, locations: str) -> None:
        folder.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.host = f"127.0.0.1:{port}"
        self._address = ("127.0.0.1", port)
        self._folder = folder
        self._config = folder / "nginx.conf"
        self._config.write_text(
            _CONFIG.format(folder=folder, port=port, certificate=certificate, key=key, locations=locations)
        )

    def __enter__(self) -> Self:
        program = find("nginx") or "nginx"
        self._process = subprocess.Popen([program, "-p", self._folder, "-c", self._config])
        deadline = time.monotonic() + READY_WITHIN
        while True:
            try:
                socket.create_connection(self._address, 1).close()
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.__exit__()
                    raise
                time.sleep(0.02)
            else:
                return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(READY_WITHIN)
