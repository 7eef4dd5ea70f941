"""`garbage-collect`."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from ocispec.digest import Digest
from ocispec.errors import LayerhouseError, StorageError
from registry import config, exclusion
from registry.commands.common import ConfigFile, failing
from storage import paths
from storage.collecting import Plan, RepositoryMarks, Rules, mark, plan_removals, sweep
from storage.files import FilesEngine

app = typer.Typer()

DryRun = Annotated[bool, typer.Option("--dry-run", "-d", help="Say what would go, and change nothing.")]
Untagged = Annotated[
    bool,
    typer.Option(
        "--delete-untagged",
        "-m",
        help="Remove also manifests that neither a tag, nor an index, nor the subject of a referrer keeps.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
GracePeriod = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        help="Keep what is younger, like 30m or 0s.  [default: layerhouse.garbagecollect.graceperiod, 1h]",
        show_default=False,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Remove also what only manifests that cannot be read may need.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, and no lines.")]
Root = Annotated[Path | None, typer.Option(help="Folder that holds the images.")]


@app.command("garbage-collect")
def garbage_collect(
    file: ConfigFile = None,
    *,
    dry_run: DryRun = False,
    untagged: Untagged = False,
    quiet: Quiet = False,
    grace_period: GracePeriod = None,
    force: Force = False,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Remove what no manifest needs any more, while nobody pushes.

    A server of ours that may write is noticed, and the command refused. One of Distribution's cannot be noticed: stop
    it first, or make it read-only. A dry run may be made beside either.

    A manifest that cannot be read may need anything that its repository holds: all of that is kept, the manifest is
    named, and the exit status is 1.
    """
    with failing():
        settings = config.load(file, root)
        grace = settings.layerhouse.garbagecollect.graceperiod if grace_period is None else _duration(grace_period)
        rules = Rules(before=time.time() - grace.total_seconds(), untagged=untagged, force=force)
        report = _Silence() if quiet else _Json(dry_run) if as_json else _Lines(dry_run, grace)
        folder = _folder(settings)
        with nullcontext() if dry_run else exclusion.alone(settings):
            plan = asyncio.run(_collect(FilesEngine(folder), rules, report, dry_run=dry_run))
        report.end(plan)
        _complain(plan, force=force)


async def _collect(engine: FilesEngine, rules: Rules, report: _Silence, *, dry_run: bool) -> Plan:
    if not dry_run:
        await engine.start()
    plan = await plan_removals(engine, rules, await mark(engine, rules, report.marked))
    report.planned(plan)
    if not dry_run:
        await sweep(engine, plan)
    return plan


def _folder(settings: config.Settings) -> Path:
    if settings.storage.inmemory:
        raise StorageError("storage.inmemory: images in memory are gone with their server, nothing can be collected")
    root = settings.storage.filesystem.rootdirectory.absolute()
    if not (root / paths.ROOT).is_dir():
        raise StorageError(f"{root}: no images are kept here, expected a folder that holds {paths.ROOT}")
    return root


def _duration(text: str) -> timedelta:
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415 - where the option is given

    from registry.config.values import Duration  # noqa: PLC0415 - beside it

    try:
        found: timedelta = TypeAdapter(Duration).validate_python(text)
    except ValidationError as error:
        raise config.ConfigError(
            f"command line: --grace-period: expected a duration like 1h30m, got {text!r:.120}"
        ) from error
    return found


def _complain(plan: Plan, *, force: bool) -> None:
    for each in plan.unreadable:
        typer.echo(f"registry: {each.repository}: manifest {each.digest} cannot be read: {each.problem}", err=True)
    if plan.unreadable and not force:
        raise LayerhouseError(
            "all that the repositories of these manifests hold was kept: push or delete them, or use --force"
        )


class _Silence:
    """A report that says nothing."""

    def marked(self, repository: RepositoryMarks, fresh: Sequence[Digest]) -> None:
        """Hears of a repository, and of those of its blobs that none before it keeps."""

    def planned(self, plan: Plan) -> None:
        """Hears what goes, before it goes."""

    def end(self, plan: Plan) -> None:
        """Hears that it is gone, or would be."""


class _Lines(_Silence):
    """Distribution's lines, and some more."""

    def __init__(self, dry_run: bool, grace: timedelta) -> None:
        self._dry_run, self._grace = dry_run, grace

    def marked(self, repository: RepositoryMarks, fresh: Sequence[Digest]) -> None:
        name = repository.name
        _write(
            name,
            # Distribution's line ends with a space.
            *(f"{name}: marking manifest {digest} " for digest in repository.manifests),
            *(f"{name}: marking blob {digest}" for digest in fresh),
        )

    def planned(self, plan: Plan) -> None:
        some = plan.repositories
        dead = [(each.name, digest, " ".join(tags)) for each in some for digest, tags in each.dead.items()]
        blobs, manifests = f"{len(plan.blobs)} blobs", f"{plan.manifests} manifests"
        _write(
            *(f"manifest eligible for deletion: {{{name} {digest} [{tags}]}}" for name, digest, tags in dead),
            f"\n{plan.marked} blobs marked, {blobs} and {manifests} eligible for deletion",
            *(f"blob eligible for deletion: {each.digest}" for each in plan.blobs),
            *(f"{each.name}: layer link eligible for deletion: {link}" for each in some for link in each.links),
            *(f"empty repository eligible for deletion: {each.name}" for each in some if each.vanishes),
        )

    def end(self, plan: Plan) -> None:
        for count, what in ((plan.young_manifests, "unused manifests"), (plan.young, "unmarked blobs")):
            if count:
                _write(f"{count} {what} kept: younger than the grace period of {self._grace}")
        _write(f"{'would free' if self._dry_run else 'freed'} {plan.size} bytes")


class _Json(_Silence):
    """One object for programs."""

    def __init__(self, dry_run: bool) -> None:
        self._dry_run = dry_run

    def end(self, plan: Plan) -> None:
        _write(json.dumps({"dryRun": self._dry_run, **_as_json(plan)}))


def _as_json(plan: Plan) -> dict[str, Any]:
    some = plan.repositories
    return {
        "marked": plan.marked,
        "young": plan.young,
        "youngManifests": plan.young_manifests,
        "bytes": plan.size,
        "manifests": [
            {"repository": each.name, "digest": str(digest), "tags": tags}
            for each in some
            for digest, tags in each.dead.items()
        ],
        "blobs": [{"digest": str(each.digest), "size": each.size} for each in plan.blobs],
        "links": [{"repository": each.name, "digest": str(link)} for each in some for link in each.links],
        "repositories": [each.name for each in some if each.vanishes],
        "unreadable": [
            {"repository": each.repository, "digest": str(each.digest), "problem": each.problem}
            for each in plan.unreadable
        ],
    }


def _write(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
