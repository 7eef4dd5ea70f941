"""What is remembered of a large folder never outlives a change of it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.listings import Listings

# Long on the clocks of the file systems that tests run on, short for whoever waits.
AT_REST = 0.05
NAMES = [f"name-{n:04}" for n in range(600)]


def rest(folder: Path) -> None:
    """Waits until the folder has been at rest for long enough to be remembered."""
    while time.time() - folder.stat().st_ctime < AT_REST * 1.2:
        time.sleep(AT_REST / 10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    made.mkdir()
    for name in NAMES:
        (made / name).mkdir()
    return made


@pytest.fixture
def listings() -> Listings:
    return Listings(at_rest=AT_REST)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every folder whose names are read from the disk."""
    read: list[str] = []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: [read.append(str(path)), listdir(path)][1])
    return read


def every_page(listings: Listings, folder: Path, size: int) -> list[str]:
    found: list[str] = []
    while page := listings.page(str(folder), found[-1] if found else "", size):
        assert len(page) <= size
        found += page
    return found


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
def test_pages_join_to_all_names_and_a_folder_at_rest_is_read_once(
    listings: Listings, folder: Path, reads: list[str], size: int
) -> None:
    rest(folder)
    for _ in range(2):
        assert every_page(listings, folder, size) == NAMES
        assert listings.page(str(folder), "", None) == NAMES
    assert reads == [str(folder)]


def test_a_folder_that_has_just_changed_is_read_for_each_page(
    folder: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    listings = Listings(at_rest=3600.0)
    assert every_page(listings, folder, 100) == NAMES
    assert reads == [str(folder)] * 7


@pytest.mark.parametrize("change", ["made", "removed", "renamed into", "renamed out of", "renamed within"])
def test_a_change_is_seen_at_once(listings: Listings, folder: Path, tmp_path: Path, change: str) -> None:
    rest(folder)
    assert every_page(listings, folder, 100) == NAMES
    expected = set(NAMES)
    if change in ("made", "renamed into"):
        expected |= {"new"}
    else:
        expected -= {NAMES[7]}
    if change == "made":
        (folder / "new").mkdir()
    elif change == "removed":
        (folder / NAMES[7]).rmdir()
    elif change == "renamed into":
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere").rename(folder / "new")
    elif change == "renamed out of":
        (folder / NAMES[7]).rename(tmp_path / "elsewhere")
    else:
        (folder / NAMES[7]).rename(folder / "within")
        expected |= {"within"}
    assert every_page(listings, folder, 100) == sorted(expected)


def test_another_folder_of_the_same_name_is_read_anew(listings: Listings, folder: Path) -> None:
    rest(folder)
    assert every_page(listings, folder, 100) == NAMES
    folder.rename(folder.with_name("former"))
    folder.mkdir()
    assert every_page(listings, folder, 100) == []


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from([*NAMES[:5], "a", "z"]), st.booleans()), max_size=8))
def test_any_order_of_changes_lists_what_is_there(
    folder: Path, listings: Listings, steps: list[tuple[str, bool]]
) -> None:
    rest(folder)
    for name, waits in steps:
        path = folder / name
        if path.exists():
            path.rmdir()
        else:
            path.mkdir()
        if waits:
            time.sleep(AT_REST * 1.2)
        present = sorted(each.name for each in folder.iterdir())
        assert every_page(listings, folder, 200) == present
        assert listings.page(str(folder), "name-0002", 3) == [each for each in present if each > "name-0002"][:3]


def test_no_more_is_remembered_than_the_limit_allows(tmp_path: Path, reads: list[str]) -> None:
    folders = [tmp_path / name for name in ("one", "two", "three")]
    for each in folders:
        each.mkdir()
        for name in NAMES:
            (each / name).mkdir()
    rest(folders[-1])
    listings = Listings(limit=100_000, at_rest=AT_REST)  # two of about 40 KB each
    for _ in range(3):
        for each in folders[:2]:
            assert every_page(listings, each, 100) == NAMES
    assert reads == [str(each) for each in folders[:2]]
    assert every_page(listings, folders[2], 100) == NAMES
    assert every_page(listings, folders[1], 100) == NAMES  # used later than the first, so it stayed
    assert reads == [str(each) for each in folders]
    assert every_page(listings, folders[0], 100) == NAMES
    assert reads[3:] == [str(folders[0])]
    large = Listings(limit=1000, at_rest=AT_REST)
    assert every_page(large, folders[0], 350) == NAMES
    assert reads[4:] == [str(folders[0])] * 3


def test_it_is_quick_about_small_folders_and_about_what_it_knows_in_order(
    listings: Listings, folder: Path, tmp_path: Path
) -> None:
    assert listings.is_quick(str(tmp_path))
    rest(folder)
    told = []
    for _ in range(4):
        told.append(listings.is_quick(str(folder)))
        listings.page(str(folder), "", 10)
    assert told == [False, False, True, True]
    (folder / "new").mkdir()
    assert not listings.is_quick(str(folder))


@pytest.mark.parametrize("use", ["page", "is_quick"])
def test_no_folder_is_told_as_the_system_tells_it(listings: Listings, tmp_path: Path, use: str) -> None:
    arguments = ("", None) if use == "page" else ()
    with pytest.raises(FileNotFoundError):
        getattr(listings, use)(str(tmp_path / "none"), *arguments)
