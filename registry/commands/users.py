"""`user`: who can log in with a password."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from registry import config
from registry.commands.auditing import audited
from registry.commands.common import failing

app = typer.Typer()
_user = typer.Typer(help="Manage who can log in with a password: the users of the htpasswd file.", no_args_is_help=True)
app.add_typer(_user, name="user")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the user.")]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="CONFIG",
        help="A config.yml whose auth.htpasswd.path names the file.  [default: $REGISTRY_CONFIGURATION_PATH]",
        show_default=False,
    ),
]
File = Annotated[
    Path | None, typer.Option("--htpasswd", metavar="FILE", help="The file itself, whatever a config says.")
]
FromInput = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input instead of the terminal.")
]


@_user.command()
def add(name: Name, file: Config = None, htpasswd: File = None, *, password_stdin: FromInput = False) -> None:
    """Add a user, and make the file where there is none. A registry that runs takes it over at once."""
    from registry.auth import passwordfile, passwords  # noqa: PLC0415 - bcrypt is not needed to serve without users

    with failing():
        path = _path(file, htpasswd)
        passwordfile.require_name(name)
        hashed = passwords.hash_password(_password(from_input=password_stdin))
        with audited(file, "user add", name):
            passwordfile.add(path, name, hashed)
        typer.echo(f"{name} can log in ({path})")


@_user.command()
def passwd(name: Name, file: Config = None, htpasswd: File = None, *, password_stdin: FromInput = False) -> None:
    """Set another password for a user."""
    from registry.auth import passwordfile, passwords  # noqa: PLC0415 - as above

    with failing():
        path = _path(file, htpasswd)
        hashed = passwords.hash_password(_password(from_input=password_stdin))
        with audited(file, "user passwd", name):
            passwordfile.set_password(path, name, hashed)
        typer.echo(f"{name} has another password ({path})")


@_user.command()
def remove(name: Name, file: Config = None, htpasswd: File = None) -> None:
    """Remove a user, who is refused from then on."""
    from registry.auth import passwordfile  # noqa: PLC0415 - as above

    with failing():
        path = _path(file, htpasswd)
        with audited(file, "user remove", name):
            passwordfile.remove(path, name)
        typer.echo(f"{name} can no longer log in ({path})")


@_user.command("list")
def list_users(file: Config = None, htpasswd: File = None) -> None:
    """List the users, one in a line, and on standard error those who cannot log in, with the reason."""
    from registry.auth.passwords import Passwords  # noqa: PLC0415 - as above
    from registry.auth.watched import read_small  # noqa: PLC0415 - as above

    with failing():
        path = _path(file, htpasswd)
        found = Passwords.parse(read_small(path), path)
        for user in sorted(found.hashes):
            typer.echo(user)
        for remark in found.remarks:
            typer.echo(f"registry: {remark}", err=True)


def _path(file: Path | None, htpasswd: Path | None) -> Path:
    if htpasswd is not None:
        return htpasswd
    found = config.load(file).auth.htpasswd
    if found is None:
        raise config.ConfigError(
            "no htpasswd file is configured: name a config with --config, or the file with --htpasswd"
        )
    return found.path


def _password(*, from_input: bool) -> str:
    if not from_input and not sys.stdin.isatty():
        raise config.ConfigError("there is no terminal to ask for the password at: give it with --password-stdin")
    if from_input:
        # What `echo` and editors add is not part of it.
        return sys.stdin.read().removesuffix("\n").removesuffix("\r")
    answer: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    return answer
