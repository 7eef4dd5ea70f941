"""Who may see the credentials of whom (CVE-2026-33540)."""

from __future__ import annotations

import pytest

from client.access.sites import Sites

SAME = [
    ("https://registry-1.docker.io/v2", "https://auth.docker.io/token"),
    ("https://ghcr.io/v2", "https://ghcr.io/token"),
    ("https://ghcr.io/v2", "https://GHCR.io:8443/token"),
    ("https://registry.gitlab.com/v2", "https://gitlab.com/jwt/auth"),
    ("https://registry.example.co.uk/v2", "https://auth.example.co.uk./token"),
    ("http://registry.example.com/v2", "https://auth.example.com/token"),
    ("http://127.0.0.1:5000/v2", "http://127.0.0.1:5001/token"),
    ("http://localhost:5000/v2", "http://localhost/token"),
    ("http://[::1]:5000/v2", "http://[::1]:5001/token"),
    ("http://registry:5000/v2", "http://registry:5001/token"),
    ("https://user.github.io/v2", "https://auth.user.github.io/token"),
]
OTHER = [
    ("https://docker.io.evil.example/v2", "https://auth.docker.io/token"),
    ("https://registry.example.com/v2", "https://evil.com/token"),
    ("https://registry.example.com/v2", "https://example.com.evil.example/token"),
    ("https://registry.example.com/v2", "https://notexample.com/token"),
    ("https://registry.example.co.uk/v2", "https://evil.co.uk/token"),
    ("https://one.github.io/v2", "https://two.github.io/token"),
    ("https://github.io/v2", "https://two.github.io/token"),
    ("http://127.0.0.1:5000/v2", "http://127.0.0.2:5000/token"),
    ("http://10.0.0.1:5000/v2", "http://11.0.0.1:5000/token"),
    ("http://10.0.0.1/v2", "http://0x7f.0.0.1/token"),
    ("http://a.0x1/v2", "http://b.0x1/token"),
    ("http://[::1]:5000/v2", "http://[::2]:5000/token"),
    ("http://[::1]:5000/v2", "http://localhost:5000/token"),
    ("http://localhost:5000/v2", "http://127.0.0.1:5000/token"),
    ("http://registry:5000/v2", "http://auth:5000/token"),
]


@pytest.mark.parametrize(("api", "realm"), SAME)
async def test_a_token_server_on_the_same_site_is_trusted(api: str, realm: str):
    assert await Sites().objection(api, realm) is None


@pytest.mark.parametrize(("api", "realm"), OTHER)
async def test_a_token_server_on_another_site_is_not(api: str, realm: str):
    assert "it is on another site than" in (await Sites().objection(api, realm) or "")


async def test_nothing_goes_from_https_to_http():
    sites = Sites()
    assert await sites.objection("https://a.example/v2", "http://a.example/t") == "they would go there unencrypted"
    assert await sites.objection("https://a.example.com/v2", "https://b.example.com/t") is None
    assert await sites.objection("https://a.example.com/v2", "https://c.example.com/t") is None
