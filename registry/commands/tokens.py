"""`token`: personal and robot tokens, the logins that clients keep, and the key of the built-in token server."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from registry import config
from registry.commands.auditing import audited
from registry.commands.common import failing

if TYPE_CHECKING:
    from registry.auth.tokens_database import TokenDatabase
    from registry.auth.tokens_file import Wish

app = typer.Typer()
_token = typer.Typer(help="Manage personal and robot tokens, and the logins that clients keep.", no_args_is_help=True)
app.add_typer(_token, name="token")

_UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_ROTATION_MARGIN = 120.0
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="CONFIG",
        help="The config.yml of the registry; the tokens lie in its state directory."
        "  [default: $REGISTRY_CONFIGURATION_PATH]",
        show_default=False,
    ),
]


@_token.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called: a robot is robot:NAME in the rules.")],
    file: Config = None,
    *,
    robot: Annotated[bool, typer.Option("--robot", help="It belongs to no user.")] = False,
    user: Annotated[str | None, typer.Option(metavar="USER", help="It belongs to a user, and ends with him.")] = None,
    repository: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="What it is for: a repository, or a pattern like team-a/**. May be given several times."
            "  [default: **]",
            show_default=False,
        ),
    ] = None,
    action: Annotated[
        str, typer.Option(metavar="LIST", help="What may be done there: any of pull, push, delete, admin.")
    ] = "pull",
    expires: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="When it ends, like 12h, 90d or 4w; never unless told.", show_default=False),
    ] = None,
) -> None:
    """Make a token, and print it: this once. A registry that runs takes it over at once.

    It does what its user or robot may do, and no more than it says itself.
    """
    from registry.auth import tokens_file  # noqa: PLC0415 - what needs no tokens starts without

    with failing():
        settings = config.load(file)
        owner = _owner(settings, user, robot=robot)
        actions = tuple(each.strip() for each in action.split(","))
        wish = tokens_file.Wish(name, owner, tuple(repository or ["**"]), actions, _until(expires))
        with audited(file, "token create", name):
            secret = tokens_file.create(settings.state_directory / tokens_file.FILE, wish)
        typer.echo(secret)
        for line in _told(wish, settings):
            typer.echo(line, err=True)


@_token.command("list")
def list_tokens(file: Config = None) -> None:
    """List the tokens, and the logins that clients keep: never the secrets."""
    from registry.auth import tokens_file  # noqa: PLC0415 - as above

    with failing():
        state = config.load(file).state_directory
        database = _database(state)
        known, uses = tokens_file.read(state / tokens_file.FILE), database.uses()
        rows: list[tuple[str, ...]] = [("NAME", "KIND", "OWNER", "MAY", "IN", "CREATED", "EXPIRES", "LAST USED")]
        for each in known.records:
            kind, owner = ("personal", each.user) if each.user else ("robot", "-")
            may, where = ",".join(each.actions), ",".join(each.repositories)
            times = (_date(each.created), _date(each.expires), _date(uses.get(each.id)))
            rows.append((each.name, kind, owner, may, where, *times))
        for login in database.logins(time.time()):
            times = (_date(login.created), _date(login.expires), _date(login.used))
            rows.append((login.title, "login", login.name, "-", login.client or "-", *times))
        for line in _aligned(rows):
            typer.echo(line)


@_token.command()
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of a token or a login, as `list` has it.")],
    file: Config = None,
) -> None:
    """Revoke a token or a login: it is refused from then on, with everything that was got by it."""
    from registry.auth import tokens_file  # noqa: PLC0415 - as above

    with failing():
        state = config.load(file).state_directory
        with audited(file, "token revoke", name):
            found = tokens_file.revoke(state / tokens_file.FILE, name)
            if found is None and not _end_login(_database(state), name):
                told = f"there is no token and no login {name!r:.80}; `registry token list` lists them"
                raise config.ConfigError(told)
        typer.echo(f"{name} is revoked")


@_token.command()
def rotate_key(
    file: Config = None,
    *,
    at_once: Annotated[
        bool, typer.Option("--at-once", help="Refuse all tokens that were given out: the key before may have leaked.")
    ] = False,
) -> None:
    """Make a new key for the built-in token server; tokens by the key before are taken until they have ended.

    Logins that clients keep, personal and robot tokens go on in any case.
    """
    from registry.auth import tokens_signing  # noqa: PLC0415 - as above

    with failing():
        settings = config.load(file)
        seconds = 0.0 if at_once else settings.layerhouse.tokens.lifetime.total_seconds() + _ROTATION_MARGIN
        with audited(file, "token rotate-key", "at once" if at_once else ""):
            kid = tokens_signing.rotate(settings.state_directory / tokens_signing.FILE, seconds)
        told = "tokens by the key before are refused" if at_once else "tokens by the key before last until they end"
        typer.echo(f"tokens are signed by the key {kid} from now on; {told}")


def _owner(settings: config.Settings, user: str | None, *, robot: bool) -> str | None:
    if robot == (user is not None):
        raise config.ConfigError("say whose token it is: either --user USER or --robot")
    htpasswd = settings.auth.htpasswd
    if user is not None and htpasswd is not None:
        from registry.auth.passwords import Passwords  # noqa: PLC0415 - as above
        from registry.auth.watched import read_small  # noqa: PLC0415 - as above

        if user not in Passwords.parse(read_small(htpasswd.path), htpasswd.path).hashes:
            raise config.ConfigError(f"there is no user {user!r:.80} in {htpasswd.path}; `registry user add` adds one")
    return user


def _told(wish: Wish, settings: config.Settings) -> Iterator[str]:
    whose = f"a token of {wish.user}" if wish.user else "a robot"
    where = "all repositories" if "**" in wish.repositories else ", ".join(wish.repositories)
    end = f"until {_date(wish.expires)}" if wish.expires else "without an end"
    yield f"{wish.name} is {whose} that may {', '.join(wish.actions)} in {where}, {end}"
    yield f"log in: docker login --username {wish.user or wish.name} --password-stdin HOST"
    if not _asks(settings):
        yield "registry: anybody comes in without a token: no auth and no layerhouse.tokens is set"


def _asks(settings: config.Settings) -> bool:
    return bool(settings.auth.htpasswd or settings.auth.token or settings.layerhouse.tokens.enabled)


def _until(expires: str | None) -> int | None:
    if expires is None:
        return None
    match = re.fullmatch(r"(\d{1,5})([mhdw])", expires)
    if not match or not int(match[1]):
        raise config.ConfigError(f"--expires {expires!r:.40}: expected a time like 30m, 12h, 90d or 4w")
    return int(time.time()) + int(match[1]) * _UNITS[match[2]]


def _date(seconds: float | None) -> str:
    return "-" if seconds is None else time.strftime("%Y-%m-%d %H:%MZ", time.gmtime(seconds))


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _database(state: Path) -> TokenDatabase:
    from registry.auth import tokens_database  # noqa: PLC0415 - as above

    return tokens_database.TokenDatabase(state / tokens_database.FILE)


def _end_login(database: TokenDatabase, title: str) -> bool:
    found = [each for each in database.logins(time.time()) if each.title == title]
    for each in found:
        database.remove(each.hash)
    return bool(found)
