"""`http.tls`: how connections are encrypted, and whose certificates are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from registry.config.values import Section, lower

CIPHER_SUITES = {
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA": "DES-CBC3-SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA": "ECDHE-RSA-DES-CBC3-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_AES_128_GCM_SHA256": "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384": "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256": "TLS_CHACHA20_POLY1305_SHA256",
}
"""The suites that Distribution knows, by Go's names, and OpenSSL's names of them."""


class LetsEncrypt(Section):
    """Certificates fetched from Let's Encrypt: not served, and so refused."""

    cachefile: str | None = Field(default=None, description="Where they would be kept.")
    email: str | None = Field(default=None, description="Whom Let's Encrypt would write to.")
    hosts: tuple[str, ...] = Field(default=(), description="The names that they would be for.")
    directoryurl: str | None = Field(default=None, description="Another authority than Let's Encrypt.")


class Tls(Section):
    certificate: Path | None = Field(
        default=None,
        description="PEM file of the server's certificate, and of those that lead to its authority. Given, TLS is "
        "served; a file that changes is read anew within seconds, without a restart.",
    )
    key: Path | None = Field(default=None, description="PEM file of the certificate's private key, not encrypted.")
    clientcas: tuple[Path, ...] = Field(
        default=(), description="PEM files of the authorities that sign clients' certificates. Read anew as well."
    )
    clientauth: Annotated[
        Literal[
            "request-client-cert",
            "require-any-client-cert",
            "verify-client-cert-if-given",
            "require-and-verify-client-cert",
        ]
        | None,
        BeforeValidator(lower),
    ] = Field(
        default=None,
        description="Whether a client has to show a certificate that one of `clientcas` signed: "
        "`require-and-verify-client-cert` (what is done where nothing is said) or `verify-client-cert-if-given`. "
        "`request-client-cert` asks for none, since one that is not verified proves nothing; "
        "`require-any-client-cert` is refused for that reason.",
    )
    minimumtls: Annotated[Literal["tls1.0", "tls1.1", "tls1.2", "tls1.3"], BeforeValidator(lower)] = Field(
        default="tls1.2",
        description="The oldest version that is spoken. `tls1.0` and `tls1.1` mean `tls1.2` (RFC 8996).",
    )
    ciphersuites: tuple[str, ...] = Field(
        default=(),
        description="Cipher suites of TLS 1.2 by Go's names; those of TLS 1.3 are fixed, as they are in Go. Where "
        "nothing is said: those with ECDHE and AES-GCM or ChaCha20.",
    )
    letsencrypt: LetsEncrypt | None = Field(
        default=None,
        description="Not served, and an error where something is given: let certbot fetch the certificate, and name "
        "its files by `certificate` and `key`, which are read anew when certbot renews them.",
    )

    @field_validator("certificate", "key", mode="before")
    @classmethod
    def _empty_is_none(cls, path: object) -> object:
        return path or None

    @field_validator("clientauth")
    @classmethod
    def _can_be_verified(cls, mode: str | None) -> str | None:
        if mode == "require-any-client-cert":
            raise ValueError(
                "require-any-client-cert would take certificates that nobody verified, which cannot be served here: "
                "expected require-and-verify-client-cert or verify-client-cert-if-given"
            )
        return mode

    @field_validator("ciphersuites")
    @classmethod
    def _are_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in CIPHER_SUITES:
                raise ValueError(f"expected some of {', '.join(CIPHER_SUITES)}, got {name!r:.80}")
        return names

    @field_validator("letsencrypt")
    @classmethod
    def _is_not_asked_for(cls, given: LetsEncrypt | None) -> LetsEncrypt | None:
        if given and given != LetsEncrypt():
            raise ValueError(
                "certificates are not fetched from Let's Encrypt here: let certbot fetch them, and name their files "
                "by http.tls.certificate and http.tls.key, which are read anew when it renews them"
            )
        return given

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if bool(self.certificate) != bool(self.key):
            given, absent = ("certificate", "key") if self.certificate else ("key", "certificate")
            raise ValueError(f"expected certificate and key, got {given} without {absent}")
        if self.clientcas and not self.certificate:
            raise ValueError("clientcas count with TLS only: expected certificate and key beside them")
        if self.clientauth and not self.clientcas:
            raise ValueError(f"clientauth: {self.clientauth} needs clientcas, by which certificates are verified")
        return self
