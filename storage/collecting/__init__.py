"""Garbage collection: mark what is in use, plan what goes, sweep it.

    marked = await mark(engine, rules)          # reads links and manifests, changes nothing
    plan = await plan_removals(engine, rules, marked)     # lists what nobody uses and is old enough
    await sweep(engine, plan)                   # links first, blobs after

**In use** is, in a repository: with `Rules.untagged`, what its tags point at and what was pushed lately; without, every
manifest. From there on what these name, at any depth: children of indexes, configs, layers, subjects; and the
referrers of what is in use (a signature of an SBOM of an image).

**Old enough** is what was last written before `Rules.before`: a push that is on its way has blobs without a manifest,
links without a tag, children without their index.

**Goes**: manifests that are not in use, with their places in the history of tags and in the index of referrers; links
of blobs that no manifest of the repository names, also where another repository keeps the blob, so that a repository
gives what its manifests name and can become empty; repositories in which nothing is left; at last the blobs.

**A manifest that cannot be read** may name anything that its repository holds. So all of that stays, and the manifest
is told of, unless `Rules.force` says that it names nothing.

**Interrupted** at any point, a sweep leaves a tree that serves what it served, and that the next run finishes: what is
not in use cannot come into use by the removal of other things that are not, and nothing names a removed blob.
"""

from storage.collecting.marking import Marked, mark
from storage.collecting.planning import Blob, Plan, plan_removals
from storage.collecting.repositories import RepositoryMarks, Unreadable, mark_repository
from storage.collecting.rules import Rules
from storage.collecting.sweeping import sweep

__all__ = [
    "Blob",
    "Marked",
    "Plan",
    "RepositoryMarks",
    "Rules",
    "Unreadable",
    "mark",
    "mark_repository",
    "plan_removals",
    "sweep",
]
