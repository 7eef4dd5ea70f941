from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.authority import Authority, openssl
from tests.support.machine import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture(scope="package")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority with certificates of every kind, right and wrong, in its folder."""
    made = Authority(tmp_path_factory.mktemp("certificates"))
    folder = made.folder
    made.make("server", "server")
    made.make("client", "client")
    made.make("other", "client")
    made.make("rsa", "client", key="rsa")
    made.make("between", "authority")
    made.make("below", "server", signer="between")
    openssl("ec", "-in", made.key, "-aes256", "-passout", "pass:x", "-out", folder / "encrypted.key")
    (folder / "both.pem").write_text((folder / "client.crt").read_text() + (folder / "client.key").read_text())
    (folder / "alone.cert").write_bytes(made.certificate.read_bytes())
    (folder / "garbage.pem").write_text("no certificate\n")
    return made
