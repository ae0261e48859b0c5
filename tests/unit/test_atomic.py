"""A file or folder is written all at once or not at all."""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from subvocab import _atomic
from subvocab._atomic import check_new_folder, replacing, replacing_folder, staged_folder
from subvocab.errors import CheckpointError

WEIGHTS = re.compile(r"weights-\d")


@pytest.fixture
def umask() -> Iterator[int]:
    """Set a umask that no default is likely to equal."""
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _fail_writing(path: Path) -> None:
    with replacing(path) as staged:
        staged.write_text("half")
        raise ZeroDivisionError


def _fail_filling(out: Path) -> None:
    with staged_folder(out) as staged:
        (staged / "half").touch()
        raise ZeroDivisionError


def test_replacing_writes_the_file_and_nothing_else(tmp_path: Path) -> None:
    """The staged file has become the target."""
    with replacing(tmp_path / "file") as staged:
        staged.write_text("new")

    assert (tmp_path / "file").read_text() == "new"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_replacing_shows_the_old_file_until_the_end(tmp_path: Path) -> None:
    """Whoever reads meanwhile reads the old file, whole."""
    (tmp_path / "file").write_text("old")

    with replacing(tmp_path / "file") as staged:
        staged.write_text("new")
        meanwhile = (tmp_path / "file").read_text()

    assert meanwhile == "old"
    assert (tmp_path / "file").read_text() == "new"


def test_replacing_keeps_the_old_file_on_an_error(tmp_path: Path) -> None:
    """An error leaves the old file, and no staged one."""
    (tmp_path / "file").write_text("old")

    with pytest.raises(ZeroDivisionError):
        _fail_writing(tmp_path / "file")

    assert (tmp_path / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_replacing_leaves_nothing_on_an_error(tmp_path: Path) -> None:
    """Where there was no file there is none afterwards."""
    with pytest.raises(ZeroDivisionError):
        _fail_writing(tmp_path / "file")

    assert list(tmp_path.iterdir()) == []


def test_replacing_keeps_the_mode_of_the_old_file(tmp_path: Path) -> None:
    """Who could read the file can read it still."""
    (tmp_path / "file").touch()
    (tmp_path / "file").chmod(0o640)

    with replacing(tmp_path / "file"):
        pass

    assert _mode(tmp_path / "file") == 0o640


def test_replacing_honours_the_umask(tmp_path: Path, umask: int) -> None:
    """A new file gets the mode that `open` would give, not that of a temporary file."""
    with replacing(tmp_path / "file"):
        pass

    assert _mode(tmp_path / "file") == 0o666 & ~umask
    assert os.umask(umask) == umask  # looking at it did not change it


def test_replacing_takes_a_mode(tmp_path: Path) -> None:
    """A copy can be given the mode of what it was copied from."""
    with replacing(tmp_path / "file", mode=0o604):
        pass

    assert _mode(tmp_path / "file") == 0o604


def test_replacing_spares_a_pipe(tmp_path: Path) -> None:
    """Nor does a device, such as ``/dev/null``, become a file."""
    os.mkfifo(tmp_path / "pipe")

    with (
        pytest.raises(CheckpointError, match=r"pipe is a device or a pipe, expected the name"),
        replacing(tmp_path / "pipe"),
    ):
        pass

    assert (tmp_path / "pipe").is_fifo()


def test_replacing_puts_a_file_in_the_place_of_a_link(tmp_path: Path) -> None:
    """What a link leads to may be shared, as blobs in the Hub's cache are: it stays."""
    (tmp_path / "blob").write_text("shared")
    (tmp_path / "link").symlink_to("blob")

    with replacing(tmp_path / "link") as staged:
        staged.write_text("new")

    assert (tmp_path / "blob").read_text() == "shared"
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "link").read_text() == "new"


def test_replacing_leaves_other_hard_links_alone(tmp_path: Path) -> None:
    """Another name of the old file keeps the old content."""
    (tmp_path / "other").write_text("shared")
    (tmp_path / "file").hardlink_to(tmp_path / "other")

    with replacing(tmp_path / "file") as staged:
        staged.write_text("new")

    assert (tmp_path / "other").read_text() == "shared"


def test_staged_folder_becomes_the_folder(tmp_path: Path) -> None:
    """Files and folders in it come along, and nothing else is left."""
    with staged_folder(tmp_path / "out") as staged:
        (staged / "below").mkdir()
        (staged / "below" / "file").write_text("new")
        meanwhile = (tmp_path / "out").exists()

    assert not meanwhile
    assert (tmp_path / "out" / "below" / "file").read_text() == "new"
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_staged_folder_takes_the_place_of_an_empty_one(tmp_path: Path) -> None:
    """A folder that was made beforehand is as good as none."""
    (tmp_path / "out").mkdir()

    with staged_folder(tmp_path / "out") as staged:
        (staged / "file").touch()

    assert (tmp_path / "out" / "file").exists()


def test_staged_folder_leaves_nothing_on_an_error(tmp_path: Path) -> None:
    """An error leaves neither the target nor a hidden folder."""
    with pytest.raises(ZeroDivisionError):
        _fail_filling(tmp_path / "out")

    assert list(tmp_path.iterdir()) == []


def test_staged_folder_refuses_what_was_filled_meanwhile(tmp_path: Path) -> None:
    """Of two that write the same folder, the second loses its own work only."""

    def write_while_another_does() -> None:
        with staged_folder(tmp_path / "out") as staged:
            (staged / "file").touch()
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "other").touch()

    with pytest.raises(CheckpointError, match="exists already"):
        write_while_another_does()

    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / "other"]
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


@pytest.fixture(params=["exchanged", "renamed"])
def checkpoint(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Write a folder that is to be replaced, where folders can change places and where not."""
    if request.param == "renamed":
        monkeypatch.setattr(_atomic, "RENAME_EXCHANGE", -1)  # the system calls it invalid
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    for name in ("weights-1", "weights-2", "notes", "below/more"):
        (folder / name).write_text(f"old {name}")
    folder.chmod(0o750)
    return folder


def test_a_replaced_folder_keeps_what_is_not_superseded(checkpoint: Path) -> None:
    """All that is new, nothing that was superseded, and the files of others."""
    with replacing_folder(checkpoint, WEIGHTS) as staged:
        (staged / "weights-1").write_text("new")
        meanwhile = (checkpoint / "weights-1").read_text()

    assert meanwhile == "old weights-1"
    files = {str(p.relative_to(checkpoint)): p for p in checkpoint.rglob("*") if p.is_file()}
    assert {name: path.read_text() for name, path in files.items()} == {
        "weights-1": "new",
        "notes": "old notes",
        "below/more": "old below/more",
    }
    assert _mode(checkpoint) == 0o750
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def test_a_folder_is_not_replaced_on_an_error(checkpoint: Path) -> None:
    """It stays as it was, and nothing hidden stays beside it."""

    def fail() -> None:
        with replacing_folder(checkpoint, WEIGHTS) as staged:
            (staged / "weights-1").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert (checkpoint / "weights-1").read_text() == "old weights-1"
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


@pytest.mark.parametrize("checkpoint", ["renamed"], indirect=True)
def test_a_folder_goes_back_if_the_new_one_cannot_take_its_place(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was moved aside before, since the two could not change places."""
    rename = Path.rename

    def fail_staged(path: Path, target: Path) -> Path:
        if path.name.endswith(".staged"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_staged)

    with (
        pytest.raises(OSError, match="Input/output error") as caught,
        replacing_folder(checkpoint, WEIGHTS) as staged,
    ):
        (staged / "weights-1").write_text("new")

    assert caught.value.filename == str(checkpoint)
    assert (checkpoint / "weights-1").read_text() == "old weights-1"
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def test_a_link_to_a_replaced_folder_stays_one(checkpoint: Path) -> None:
    """What it leads to is replaced."""
    link = checkpoint.with_name("latest")
    link.symlink_to(checkpoint)

    with replacing_folder(link, WEIGHTS) as staged:
        (staged / "weights-1").write_text("new")

    assert link.is_symlink()
    assert (checkpoint / "weights-1").read_text() == "new"


def test_a_new_folder_may_lie_deep(tmp_path: Path) -> None:
    """As `save_pretrained` has it."""
    with replacing_folder(tmp_path / "a" / "b", WEIGHTS) as staged:
        (staged / "weights-1").touch()

    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["weights-1"]


def test_a_file_is_no_folder_to_replace(tmp_path: Path) -> None:
    """It is not put aside."""
    (tmp_path / "file").touch()

    with (
        pytest.raises(CheckpointError, match=r"file is a file, expected a folder\. Name another\."),
        replacing_folder(tmp_path / "file", WEIGHTS),
    ):
        pass


@pytest.mark.parametrize("held", ["folder", "file", "link", "dead link"])
def test_check_new_folder_refuses_what_is_there(tmp_path: Path, held: str) -> None:
    """Nothing is overwritten, be it a file, or a link to an empty folder."""
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    if held == "folder":
        (out / "below").mkdir(parents=True)
    elif held == "file":
        out.touch()
    else:
        out.symlink_to("empty" if held == "link" else "none")

    with pytest.raises(CheckpointError) as caught:
        check_new_folder(out)

    assert str(caught.value) == (
        f"{out} exists already, and nothing is ever overwritten. Name a new folder, or an empty "
        "one."
    )


def test_check_new_folder_needs_a_folder_to_lie_in(tmp_path: Path) -> None:
    """Folders above are not made in passing: a slip of the pen would make them."""
    with pytest.raises(CheckpointError) as caught:
        check_new_folder(tmp_path / "none" / "out")

    assert (
        str(caught.value) == f"There is no folder {tmp_path / 'none'} to write `out` in. Make it."
    )


def test_check_new_folder_accepts_a_new_or_empty_one(tmp_path: Path) -> None:
    """Both can be filled without a loss."""
    (tmp_path / "empty").mkdir()

    check_new_folder(tmp_path / "empty")
    check_new_folder(tmp_path / "new")


def _left(folder: Path, name: str, seconds_ago: float) -> Path:
    """Leave what a process that was killed would have left."""
    left = folder / name
    left.mkdir()
    (left / "half").touch()
    then = time.time() - seconds_ago
    os.utime(left, (then, then))
    return left


@pytest.mark.parametrize("write", ["file", "folder"])
def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path, write: str) -> None:
    """It is hidden and may be large, so nobody else would."""
    left = _left(tmp_path, ".out.0123456789abcdef.staged", 61)

    with staged_folder(tmp_path / "out") if write == "folder" else replacing(tmp_path / "out"):
        pass

    assert not left.exists()


@pytest.mark.parametrize(
    ("name", "seconds_ago"),
    [
        (".out.0123456789abcdef.staged", 59),
        (".out.0123456789abcde.staged", 1_000),
        (".out.model.staged", 1_000),
        (".other.0123456789abcdef.staged", 1_000),
        ("out.0123456789abcdef.staged", 1_000),
    ],
)
def test_nothing_else_is_removed(tmp_path: Path, name: str, seconds_ago: float) -> None:
    """Not what another process may be about to lock, and no file of anybody else."""
    left = _left(tmp_path, name, seconds_ago)

    with staged_folder(tmp_path / "out"):
        pass

    assert (left / "half").exists()


def test_what_is_being_written_is_not_removed(tmp_path: Path) -> None:
    """A copy may take an hour; two may be at it at once."""
    with staged_folder(tmp_path / "out") as first:
        os.utime(first, (0, 0))
        with replacing(tmp_path / "out.txt"), replacing(tmp_path / "out") as second:
            os.utime(second, (0, 0))
            with replacing(tmp_path / "out"):
                pass
            (tmp_path / "out").unlink()
            assert first.exists()
            assert second.exists()
            second.write_text("new")
        (tmp_path / "out").unlink()

    assert sorted(os.listdir(tmp_path)) == ["out", "out.txt"]  # noqa: PTH208


def test_an_error_of_the_system_names_the_target(tmp_path: Path) -> None:
    """The hidden name would tell a reader nothing, and a descriptor has no name at all."""

    def fail(where: str | None) -> str:
        with pytest.raises(OSError) as caught, staged_folder(tmp_path / "out") as staged:  # noqa: PT011
            raise OSError(28, "No space left on device", where and where.format(staged))
        return str(caught.value)

    assert fail(None).endswith(f"'{tmp_path / 'out'}'")
    assert fail("{}/config.json").endswith(f"'{tmp_path / 'out' / 'config.json'}'")
    assert fail("elsewhere").endswith("'elsewhere'")
