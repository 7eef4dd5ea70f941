"""`pullclient login`, `logout`: the credentials that docker and pullclient share."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from client.commands.common import Insecure, PlainHttp, end, host_of, opened, run

if TYPE_CHECKING:
    from client.access.credential import Credential
    from client.session import Session

# ruff: noqa: PLC0415 - see client.commands.common

app = typer.Typer()

MAX_PASSWORD = 64 * 1024
Host = Annotated[
    str, typer.Argument(metavar="HOST", help="A registry, as image names have it; docker.io for Docker Hub.")
]


@app.command()
def login(
    host: Host,
    *,
    username: Annotated[
        str | None, typer.Option("--username", "-u", metavar="USER", help="Who you are there.  [default: asked for]")
    ] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input, not from the terminal.")
    ] = False,
    plain_http: PlainHttp = False,
    insecure: Insecure = False,
) -> None:
    """Prove a name and password at a registry, and keep them where docker does.

    They go to the credential helper that docker's config.json names, else into that file. A password is never taken
    from the command line, where everybody on the machine can read it.

    Credentials are looked for in $REGISTRY_AUTH_FILE, else containers/auth.json in $XDG_RUNTIME_DIR and in
    $XDG_CONFIG_HOME; then in config.json in $DOCKER_CONFIG, which is ~/.docker unless it is set.
    """
    name = host_of(host)
    credential = _asked(name, username, password_stdin=password_stdin)
    run(lambda: _login(opened(plain_http=plain_http, insecure=insecure), name, credential))


@app.command()
def logout(host: Host) -> None:
    """Forget the credentials for a registry that login or docker keeps."""
    name = host_of(host)
    run(lambda: _logout(name))


async def _login(session: Session, host: str, credential: Credential) -> None:
    from client.access.credentials import Credentials
    from client.access.login import proven

    async with session:
        api = await session.api(host)
        asked = await proven(api.endpoint, session.send, credential)
    if not asked:
        typer.echo(f"{host} does not ask who you are: the password could not be proven", err=True)
    credentials = Credentials(os.environ)
    kept = await credentials.store(host, credential)
    typer.echo(f"Logged in to {host} as {credential.username}; kept in {kept.place}")
    if kept.plain:
        typer.echo(
            "Warning: the password is stored there unencrypted. A credential helper keeps it safe: "
            'name one as "credsStore" in that file.',
            err=True,
        )
    first = await credentials.find(host, "")
    if first and first != credential:
        typer.echo(f"Warning: {first.owner} comes before it and is what is used", err=True)


async def _logout(host: str) -> None:
    from client.access.credentials import Credentials

    credentials = Credentials(os.environ)
    places = await credentials.erase(host)
    for place in places:
        typer.echo(f"Logged out of {host}; removed from {place}")
    left = await credentials.find(host, "")
    if left:
        typer.echo(f"Warning: there is still {left.owner}, which pullclient uses and does not remove", err=True)
    elif not places:
        typer.echo(f"There are no credentials for {host}")


def _asked(host: str, username: str | None, *, password_stdin: bool) -> Credential:
    from client.access.credential import Credential

    if password_stdin and not username:
        raise typer.BadParameter("--password-stdin needs --username")
    if not password_stdin and not sys.stdin.isatty():
        raise typer.BadParameter("there is no terminal to ask for the password: use --password-stdin")
    try:
        user = username or typer.prompt(f"Username for {host}", err=True)
        password = _read() if password_stdin else typer.prompt(f"Password of {user}", hide_input=True, err=True)
    except typer.Abort:
        end("interrupted; nothing was kept", 130)
    if not password:
        end("the password is empty", 2)
    if ":" in user or not user.isprintable():
        end(f"{user!r} is no user name: it cannot hold ':' (RFC 7617)", 2)
    return Credential(user, password)


def _read() -> str:
    """Returns the password that stands on standard input, without the line's end that `echo` puts behind it."""
    text = sys.stdin.buffer.read(MAX_PASSWORD + 1)
    if len(text) > MAX_PASSWORD:
        end(f"a password has at most {MAX_PASSWORD} bytes", 2)
    try:
        return text.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        end("the password is not UTF-8", 2)
