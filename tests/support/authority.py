"""Certificates made by openssl."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

_EXTENSIONS = {
    "authority": "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign",
    "server": "subjectAltName=DNS:localhost,DNS:registry.example.com,IP:127.0.0.1\nextendedKeyUsage=serverAuth",
    "client": "extendedKeyUsage=clientAuth",
}
_KEYS = {"ec": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], "rsa": ["-algorithm", "RSA"]}


class Authority:
    """Signs certificates; every file is `NAME.crt` or `NAME.key` in its folder."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder = folder
        self.name = name
        self.certificate, self.key = self.make(name, "authority", signer=None)

    def make(self, name: str, use: str, *, key: str = "ec", signer: str | None = "") -> tuple[Path, Path]:
        """Make a certificate and its key. `signer` is the name of another one here; None for itself."""
        paths = [self.folder / f"{name}.{each}" for each in ("crt", "key", "csr", "ext")]
        certificate, private, request, extensions = paths
        extensions.write_text(_EXTENSIONS[use])
        openssl("genpkey", *_KEYS[key], "-out", private)
        openssl("req", "-new", "-key", private, "-subj", f"/CN={name}", "-out", request)
        by = self.folder / (signer or self.name)
        signing = ["-signkey", private] if signer is None else ["-CA", f"{by}.crt", "-CAkey", f"{by}.key"]
        serial = [] if signer is None else ["-CAcreateserial"]
        openssl(
            "x509", "-req", "-in", request, *signing, *serial, "-extfile", extensions, "-days", "30",
            "-out", certificate,
        )  # fmt: skip
        return certificate, private

    def server(self, name: str = "server", *, asks: bool = False) -> ssl.SSLContext:
        """What a server takes that has the certificate `name`, and asks for one of the client's, if told to."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        if asks:
            made.verify_mode = ssl.CERT_REQUIRED
            made.load_verify_locations(self.certificate)
        return made


def openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
