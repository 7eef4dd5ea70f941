"""Machines with certificates, over real TLS."""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError

import pytest

from tests.support.authority import Authority
from tests.support.processes import RegistryProcess

CONFIG = """\
version: 0.1
storage: {{filesystem: {{}}}}
http:
  tls: {{certificate: {0}/server.crt, key: {0}/server.key, clientcas: [{0}/ca.crt], clientauth: {1}}}
layerhouse:
  access:
    certificates: true
    rules:
      - {{who: certificate:builder, allow: [pull, push]}}
"""


@pytest.mark.peer("openssl")
def test_the_common_name_of_a_certificate_tells_who_asks(
    registry_server: Callable[..., RegistryProcess], tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    authority.make("server", "server")
    config = tmp_path / "config.yml"
    config.write_text(CONFIG.format(tmp_path, "verify-client-cert-if-given"))
    server = registry_server(args=[str(config)])

    def ask(name: str | None) -> int:
        trust = ssl.create_default_context(cafile=str(authority.certificate))
        if name:
            trust.load_cert_chain(*authority.make(name, "client"))
        request = urllib.request.Request(f"https://{server.host}/v2/app/blobs/uploads/", method="POST")
        try:
            with urllib.request.urlopen(request, context=trust) as answer:
                return int(answer.status)
        except HTTPError as error:
            error.close()
            return error.code

    assert [ask("builder"), ask("stranger"), ask(None)] == [202, 403, 403]
