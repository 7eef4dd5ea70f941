"""What is remembered of a small file never outlives the file."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.smallfiles import SmallFiles


def rest(path: Path) -> None:
    """Waits until the file has been at rest for long enough to be remembered."""
    while time.time() - path.stat().st_ctime < 2.1:
        time.sleep(0.1)


def replace(path: Path, data: bytes) -> None:
    temporary = path.with_name("temporary")
    temporary.write_bytes(data)
    temporary.replace(path)


def test_a_replaced_file_is_read_anew(tmp_path: Path) -> None:
    files, path = SmallFiles(), tmp_path / "link"
    replace(path, b"one")
    rest(path)
    assert [files.read(str(path), 10) for _ in range(3)] == [b"one"] * 3
    for n in range(200):
        data = f"{n:03}".encode()
        replace(path, data)
        assert files.read(str(path), 10) == data


def test_a_deleted_file_is_gone(tmp_path: Path) -> None:
    files, path = SmallFiles(), tmp_path / "link"
    replace(path, b"one")
    rest(path)
    assert files.read(str(path), 10) == b"one"
    path.unlink()
    with pytest.raises(FileNotFoundError):
        files.read(str(path), 10)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps=st.lists(st.one_of(st.binary(max_size=3), st.just(None)), max_size=20))
def test_any_order_of_replacing_and_deleting_reads_what_is_there(tmp_path: Path, steps: list[bytes | None]) -> None:
    files, path = SmallFiles(), tmp_path / "link"
    for step in steps:
        if step is None:
            path.unlink(missing_ok=True)
            with pytest.raises(FileNotFoundError):
                files.read(str(path), 10)
        else:
            replace(path, step)
            assert files.read(str(path), 10) == step
            assert files.read(str(path), 10) == step
