"""Files elsewhere are read as files here are; `file://` and `memory://` stand for them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import fsspec  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from subvocab.data import scan
from subvocab.data.urls import files_at
from subvocab.errors import DataError, MissingExtraError
from tests import tiny_tokenizers

TEXTS = ["the cat sat", "", "the dog didn't"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write texts in every format."""
    (tmp_path / "a.txt").write_text("\n".join(TEXTS))
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    (tmp_path / "c.csv").write_text("text,n\nthe cat,1\n12,2\n")
    (tmp_path / "d.tsv").write_text("text\tn\nthe cat\t1\n")
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "e.parquet")
    return tmp_path


def test_a_folder_elsewhere_is_scanned_as_here(folder: Path) -> None:
    """Every format, in one folder."""
    tokenizer = tiny_tokenizers.wordpiece()

    counts = scan(folder.as_uri(), tokenizer=tokenizer, text_columns="text")

    assert counts == scan(folder, tokenizer=tokenizer, text_columns="text")
    assert counts.total_tokens > 0


def test_files_of_another_protocol_are_scanned() -> None:
    """What fsspec opens is read, whatever it is kept in."""
    with fsspec.open("memory://folder/a.txt", "w") as file:
        file.write("\n".join(TEXTS))
    tokenizer = tiny_tokenizers.wordpiece()

    counts = scan("memory://folder/a.txt", tokenizer=tokenizer)

    assert counts == scan(TEXTS, tokenizer=tokenizer)


def test_wildcards_of_a_url_are_expanded(folder: Path) -> None:
    """In order of name; a path is left to the shell."""
    found = files_at(f"{folder.as_uri()}/[ab].*")

    assert [str(file) for file in found] == [
        (folder / name).as_uri() for name in ("a.txt", "b.jsonl")
    ]
    assert files_at("*.txt") == [Path("*.txt")]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("file:///none/*.txt", "No file has a name like file:///none/*.txt."),
        ("none://a", "none://a cannot be opened: Protocol not known: none. Name a local file, or"),
    ],
)
def test_names_without_files_are_refused(name: str, said: str) -> None:
    """The message has the name."""
    with pytest.raises(DataError) as error:
        files_at(name)

    assert str(error.value).startswith(said)


def test_a_file_that_is_not_there_is_told() -> None:
    """As for paths."""
    with pytest.raises(DataError, match="There is no file or folder file:///none"):
        scan("file:///none/a.txt", full_vocab_size=9)


ROWS = b'{"text": "the cat sat"}\n' * 5


class _Server(BaseHTTPRequestHandler):
    """Answers as the name of the file tells."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        """Tell about the file."""
        status = int(self.path[1:4]) if self.path[1:4].isdigit() else 200
        self.send_response(status)
        lengths = {"/chunked": None, "/cut": len(ROWS) + 100, "/whole": len(ROWS)}
        length = lengths.get(self.path.partition(".")[0], 0)
        if length is None:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def do_GET(self) -> None:
        """Send the file, or less than was promised."""
        self.do_HEAD()
        if self.path.startswith("/chunked"):
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(ROWS), ROWS))
        elif self.path.startswith(("/cut", "/whole")):
            self.wfile.write(ROWS)
        self.close_connection = self.path.startswith("/cut")

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    """Run a server of this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as running:
        thread = Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "name", ["whole.jsonl", "whole.jsonl?download=true", "chunked.jsonl", "chunked.csv"]
)
def test_a_file_over_http_is_read(server: str, name: str) -> None:
    """Also one whose length the server does not tell, and one with a query."""
    counts = scan(f"{server}/{name}", tokenizer=tiny_tokenizers.wordpiece())

    assert counts.total_tokens > 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("404.jsonl", r"^There is no file or folder http:.*404\.jsonl\.$"),
        ("403.jsonl", r"403\.jsonl cannot be read \(ClientResponseError: 403, .*Look whether"),
        ("500.csv", r"500\.csv cannot be read \(ClientResponseError: 500, "),
        ("cut.jsonl", r"cut\.jsonl cannot be read \(ClientPayloadError: "),
        ("cut.csv", r"cut\.csv cannot be read \(ClientPayloadError: "),
        ("chunked.parquet", r"chunked\.parquet cannot be read \(ValueError: Cannot seek "),
    ],
)
def test_a_failure_over_http_is_told(server: str, name: str, message: str) -> None:
    """One error with the address and the reason."""
    with pytest.raises(DataError, match=message):
        scan(f"{server}/{name}", tokenizer=tiny_tokenizers.wordpiece())


def test_an_address_that_is_none_is_refused() -> None:
    """Whatever the library of its protocol raises."""
    with pytest.raises(DataError, match=r"^http://\[bad cannot be read \(.*\. Look whether"):
        scan("http://[bad", tokenizer=tiny_tokenizers.wordpiece())


def test_a_fault_elsewhere_is_told_with_its_line(folder: Path) -> None:
    """The file is opened again to find the line."""
    (folder / "a.txt").write_bytes(b"good\n\xff\n")

    with pytest.raises(DataError, match=r"Line 2 of file:///.*/a.txt is not UTF-8"):
        scan((folder / "a.txt").as_uri(), tokenizer=tiny_tokenizers.wordpiece())


def test_the_engine_ray_needs_ray(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install is told."""
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "ray.data", raising=False)

    with pytest.raises(MissingExtraError) as error:
        scan(folder, tokenizer=tiny_tokenizers.wordpiece(), engine="ray")

    assert str(error.value) == (
        "The engine `ray` needs `ray`, which is not installed. Run `pip install 'subvocab[ray]'`."
    )


def test_an_unknown_engine_is_refused(folder: Path) -> None:
    """Both that there are, are named."""
    with pytest.raises(DataError, match="The engine is `spark`, expected `local` or `ray`"):
        scan(folder, full_vocab_size=9, engine="spark")
