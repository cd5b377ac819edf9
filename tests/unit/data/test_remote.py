"""Downloads, resumption and checks of files, with a real server on this machine."""

from __future__ import annotations

import hashlib
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pretraining.data import remote
from pretraining.data.remote import RemoteFile, overview, size_text
from pretraining.data.retrieve import remote_files, retrieve, study_items
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import read_yaml

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """A server of one file whose connections can be made to break."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.ranges = True
        self.answers: list[int] = []
        self.breaks: list[int] = []
        self.requests: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/data.bin"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append(self.headers.get("Range"))
        if self.server.answers:
            status = self.server.answers.pop(0)
            if status >= 400:
                self.send_error(status)
                return
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and self.server.ranges:
            start = int(asked[1])
            if start >= len(self.server.content):
                self.send_error(416)
                return
            self.send_response(206)
            last = len(self.server.content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{last + 1}")
        else:
            self.send_response(200)
        body = self.server.content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        sent = self.server.breaks.pop(0) if self.server.breaks else len(body)
        self.wfile.write(body[:sent])

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(remote, "BACKOFF", 0.01)
    with Server() as http:
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        yield http
        http.shutdown()


@pytest.fixture
def get(server: Server, tmp_path: Path) -> Callable[..., dict]:
    """Retrieve the server's file; returns what is known of it afterwards."""

    def get(**entry) -> dict:
        entry = {"url": server.url, "digest": SHA256, "bytes": len(CONTENT)} | entry
        (found,) = retrieve("source~x", [RemoteFile("in/data.bin", **entry)], tmp_path)
        assert (tmp_path / "in/data.bin").read_bytes() == server.content
        assert [path.name for path in (tmp_path / "in").iterdir()] == ["data.bin"]
        return found

    return get


@pytest.mark.parametrize(
    "entry",
    [{}, {"digest": SHA256[:12]}, {"algorithm": "md5", "digest": MD5}, {"digest": None}],
)
def test_a_download_is_checked_and_recorded(get, entry) -> None:
    assert get(**entry) == {"path": "in/data.bin", "sha256": SHA256, "bytes": len(CONTENT)}


def test_a_broken_connection_costs_only_what_was_under_way(get, server) -> None:
    server.breaks = [409_600, 307_200]
    get()
    assert server.requests == [None, "bytes=409600-", "bytes=716800-"]


def test_a_later_run_resumes(get, server, tmp_path) -> None:
    server.breaks = [512_000, *[0] * remote.ATTEMPTS]
    with pytest.raises(UserError, match="no connection to 127.0.0.1"):
        get()
    assert (tmp_path / "in/data.bin.part").stat().st_size == 512_000
    assert not (tmp_path / "in/data.bin").exists()
    server.requests.clear()
    get()
    assert server.requests == ["bytes=512000-"]


def test_a_server_without_ranges_sends_all_again(get, server) -> None:
    server.ranges = False
    server.breaks = [409_600]
    get()
    assert server.requests == [None, "bytes=409600-", None]


@pytest.mark.parametrize("size", [1000, len(CONTENT), len(CONTENT) + 10])
def test_a_wrong_beginning_is_thrown_away(get, server, tmp_path, size) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/data.bin.part").write_bytes(b"x" * size)
    get()
    assert server.requests == [f"bytes={size}-", None]


def test_a_beginning_that_nothing_can_check_is_not_used(get, server, tmp_path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/data.bin.part").write_bytes(b"x" * 1000)
    get(digest=None)
    assert server.requests == [None]


def test_a_complete_part_is_taken(get, server, tmp_path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/data.bin.part").write_bytes(CONTENT)
    get()
    assert server.requests == [f"bytes={len(CONTENT)}-"]


def test_a_busy_server_is_asked_again(get, server) -> None:
    server.answers = [503, 429]
    get()
    assert len(server.requests) == 3


def test_what_the_server_does_not_have(get, server, tmp_path) -> None:
    server.answers = [404]
    with pytest.raises(UserError, match=r"data.bin .*\(the server says 404\)"):
        get()
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("content", "entry", "words"),
    [
        (b"<!DOCTYPE html><p>Sign in", {}, "has 25 bytes, not 1,048,576 (it is a web page)"),
        (b" <html>", {"bytes": None}, f"not {SHA256} (it is a web page)"),
        (
            b"<!doctype HTML>",
            {"bytes": None, "digest": None},
            "what the server sends is a web page",
        ),
        (b"", {"bytes": None, "digest": None}, "what the server sends is empty"),
        (CONTENT[:-1] + b"x", {}, f"not {SHA256})"),
        (CONTENT[:-1] + b"x", {"digest": SHA256[:12]}, f"not {SHA256[:12]})"),
    ],
)
def test_another_file_than_expected_is_not_kept(server, tmp_path, content, entry, words) -> None:
    server.content = content
    entry = {"url": server.url, "digest": SHA256, "bytes": len(CONTENT)} | entry
    with pytest.raises(UserError) as error:
        retrieve("source~x", [RemoteFile("data.bin", **entry)], tmp_path)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_needs_no_server(tmp_path) -> None:
    (tmp_path / "data.bin").write_bytes(CONTENT)
    file = RemoteFile("data.bin", "http://nowhere.invalid/x", digest=SHA256[:12])
    (found,) = retrieve("source~x", [file], tmp_path)
    assert found["sha256"] == SHA256


def test_a_wrong_file_in_place_is_named_and_left(tmp_path) -> None:
    (tmp_path / "data.bin").write_bytes(b"mine")
    file = RemoteFile("data.bin", "http://nowhere.invalid/x", digest="0" * 12)
    with pytest.raises(UserError) as error:
        retrieve("source~x", [file], tmp_path)
    found = hashlib.sha256(b"mine").hexdigest()[:12]
    assert str(error.value) == (
        f"source x: data.bin is in place but has the sha256 {found}, not 000000000000: it is left "
        "as it is; move it away, and get the right one from http://nowhere.invalid/x"
    )
    assert (tmp_path / "data.bin").read_bytes() == b"mine"


def test_a_gap_needs_the_sparse_points_that_it_names(root, tmp_path) -> None:
    names = [f"gap_demo.xml{suffix}" for suffix in ("", ".sparseX.demo1", ".sparseX.demo2")]
    for name in names[:2]:
        shutil.copy(root / "resources/demo" / name, tmp_path / name)
    (tmp_path / names[0]).rename(tmp_path / "gap.xml")
    file = RemoteFile("gap.xml", origin="https://doi.org/1")
    with pytest.raises(UserError) as error:
        retrieve("source~gap", [file], tmp_path)
    assert str(error.value) == (
        "source gap: 1 file missing: gap_demo.xml.sparseX.demo2 (size unknown) from where gap.xml "
        "is from (no direct address is known): fetch by other means, put in place and run again"
    )
    shutil.copy(tmp_path / names[1], tmp_path / names[2])
    with pytest.raises(UserError, match="demo2 is in place but has the md5 6b54e77384528007b102"):
        retrieve("source~gap", [file], tmp_path)
    shutil.copy(root / "resources/demo" / names[2], tmp_path / names[2])
    found = retrieve("source~gap", [file], tmp_path)
    assert [entry["path"] for entry in found] == ["gap.xml", *names[1:]]


def test_without_a_network_one_line_says_all(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(remote, "BACKOFF", 0.01)
    with socket.socket() as nobody:  # bound, but it does not listen
        nobody.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{nobody.getsockname()[1]}"
        files = [
            RemoteFile("a.zip", f"https://{host}/a.zip", bytes=560_000_000, estimated=True),
            RemoteFile("b.yace", f"https://{host}/b", "https://doi.org/1", bytes=244_608),
            RemoteFile("c.xml", origin="https://doi.org/2"),
        ]
        with pytest.raises(UserError) as error:
            retrieve("source~x", files, tmp_path)
    reason = rf"\(no connection to {host}: Failed to connect to [^;]*\)"
    assert re.fullmatch(
        "source x: 3 files missing: "
        rf"a\.zip \(about 560 MB\) from https://{host}/a\.zip {reason}; "
        rf"b\.yace \(245 kB\) from https://{host}/b or https://doi\.org/1 {reason}; "
        r"c\.xml \(size unknown\) from https://doi\.org/2 \(no direct address is known\): "
        "fetch by other means, put in place and run again",
        str(error.value),
    )
    assert list(tmp_path.iterdir()) == []


def test_without_curl_one_line_says_it(server, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"data\.bin cannot be downloaded: curl is not installed"):
        retrieve("source~x", [RemoteFile("data.bin", server.url)], tmp_path)


def test_a_full_disk_is_noticed_before(get, monkeypatch) -> None:
    monkeypatch.setattr(remote, "MARGIN", 10**18)
    with pytest.raises(UserError, match=r"in/data.bin \(1.0 MB\) does not fit: .*make room"):
        get()


def test_two_at_once_download_it_once(server, tmp_path) -> None:
    file = RemoteFile("data.bin", server.url, digest=SHA256)
    threads = [
        threading.Thread(target=retrieve, args=("source~x", [file], tmp_path)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["data.bin"]


def test_a_folder_as_mirror(get, tmp_path) -> None:
    url = f"file://{tmp_path}/mirror.bin"
    with pytest.raises(UserError, match="mirror.bin"):
        get(url=url)
    (tmp_path / "mirror.bin").write_bytes(CONTENT)
    get(url=url)


def test_a_dataset_of_load_atoms(server, tmp_path, monkeypatch) -> None:
    """Retrieved with a network, read without."""
    from load_atoms.database.importers import c_gap_17

    from pretraining.data import load_atoms
    from pretraining.data.readers import open_raw

    config = {"datasets": {"a": {"load_atoms": "C-GAP-17"}}}
    server.content = b"1\nenergy=-1.0 pbc=F\nC 0 0 0\n" * 3
    (raw,) = c_gap_17.Importer.files_to_download()
    raw.url, raw.expected_hash = server.url, hashlib.sha256(server.content).hexdigest()[:12]
    monkeypatch.setattr(c_gap_17.Importer, "files_to_download", lambda: [raw])
    monkeypatch.setattr(load_atoms, "DESCRIPTIONS", {})
    files = remote_files(config, "dataset~a")
    entry = tmp_path / files[0].path
    entry.parent.mkdir(parents=True)
    entry.write_text(
        "name: C-GAP-17\nyear: 2017\ndescription: test\ncategory: Potential Fitting\nlicense: MIT\n"
    )
    retrieve("dataset~a", files, tmp_path)
    assert len(server.requests) == 1
    monkeypatch.setattr(socket, "socket", None)
    frames = list(open_raw(config["datasets"]["a"], tmp_path).frames)
    assert [atoms.info["energy"] for atoms in frames] == [-1.0] * 3


def test_files_of_a_configuration() -> None:
    grid = {"structures": "a", "transforms": ["none"], "also_test": []}
    grid |= {"pretrain_sizes": [5], "pretrain_seeds": [1]}
    config = {
        "datasets": {
            "a": {"path": ["x", "y"], "url": ["http://h/x", "http://h/y"], "sha256": ["0", "1"]},
            "b": {"path": "z"},
            "c": {"load_atoms": "C-GAP-17"},
            "unused": {"load_atoms": "C-GAP-17"},
        },
        "sources": {
            "ace": {"files": [{"path": "p", "url": "https://h/p", "md5": "2", "bytes": 7}]},
            "zero": {},
            "own": {"files": [{"path": "q", "from": "https://doi.org/1"}]},
        },
        "experiments": {
            "e": grid | {"target": "c", "sources": ["ace"]},
            "f": grid | {"target": "b", "sources": ["zero"]},
        },
        "embeddings": {},
        "dynamics": {},
        "pretrained_weights": [],
    }
    assert study_items(config) == ["dataset~a", "dataset~c", "source~ace"]
    config["datasets"]["b"]["energy_reference"] = {"source": "own"}
    assert study_items(config) == ["dataset~a", "dataset~c", "source~ace", "source~own"]
    assert study_items({"sources": config["sources"]}) == ["source~ace", "source~own"]
    moved = config | {"dynamics": {"m": {"start": {"dataset": "unused"}}}}
    assert study_items(moved)[:3] == ["dataset~a", "dataset~c", "dataset~unused"]
    weights = {"file": "w/a.pth", "url": "http://h/a", "sha256": "3"}
    weights |= {"structures": "a", "transform": "none", "source": "ace", "npre": 5, "seed": 1}
    others = [{"npre": 6}, {"file": "w/b.pth", "npre": 7}]
    config["pretrained_weights"] = [weights, *(weights | other for other in others)]
    del config["pretrained_weights"][2]["url"]
    # Nothing reads the labels of ace any more; the structures are those of `zero` as well.
    found = study_items(config)
    assert found == ["dataset~a", "dataset~c", "source~own", "weights~a.pth"]
    config["pretrained_weights"].append(weights | {"source": "zero"})
    assert study_items(config) == ["dataset~c", "source~own", "weights~a.pth"]
    assert remote_files(config, "weights~a.pth") == [
        RemoteFile("w/a.pth", "http://h/a", digest="3")
    ]
    assert remote_files(config, "dataset~a")[1] == RemoteFile("y", "http://h/y", digest="1")
    (file,) = remote_files(config, "source~ace")
    assert (file.algorithm, file.digest, file.bytes) == ("md5", "2", 7)
    entry, data = remote_files(config, "dataset~c")
    assert entry.path == "resources/load-atoms/database-entries/C-GAP-17.yaml"
    assert data.path == "resources/load-atoms/raw-downloads/C-GAP-17/C-GAP-17.extxyz"
    assert data.digest == "8dd037b59c88" and data.url.endswith("/C-GAP-17/C-GAP-17.extxyz")
    config["datasets"]["a"]["url"].pop()
    with pytest.raises(UserError, match="dataset a: 2 path, 1 url and 2 sha256: give one of each"):
        remote_files(config, "dataset~a")


def test_what_is_shown_before(tmp_path) -> None:
    (tmp_path / "p").touch()
    files = [
        RemoteFile("p", "http://h/p", bytes=2_000_000),
        RemoteFile("q", origin="https://doi.org/1"),
    ]
    assert overview({"dataset~a": files, "source~b": files[:1]}, tmp_path).splitlines() == [
        "dataset a:",
        "  p  2.0 MB  from http://h/p",
        "  q  size unknown  by hand, from https://doi.org/1",
        "source b:",
        "  p  2.0 MB  from http://h/p",
        "total: 2 files, 2.0 MB, and 1 of unknown size, 1 of them are in place, "
        "1 can only be fetched by hand",
    ]
    assert [size_text(n) for n in (7, 2000, 31e6, 1.7e9)] == [
        "7 bytes",
        "2.0 kB",
        "31 MB",
        "1.7 GB",
    ]


def test_brackets_in_an_address_are_no_pattern(tmp_path) -> None:
    (tmp_path / "a[1].txt").write_text("content")
    file = RemoteFile("x", f"file://{tmp_path}/a[1].txt")
    remote.download(file, tmp_path / "x")
    assert (tmp_path / "x").read_text() == "content"


def test_a_malformed_address_is_refused_at_once(tmp_path) -> None:
    with pytest.raises(remote.Refused):
        remote.download(RemoteFile("x", "http://a b/c"), tmp_path / "x")


SHA = {"sha256": "0" * 64}


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ({"path": "a/b", "url": "https://h/b"}, None),
        ({"path": "a/b", "url": "http://h/b"} | SHA, None),
        ({"path": "a/b", "url": "file:///b"} | SHA, None),
        ({"path": "../b"}, None),
        ({"path": "a/b", "url": "http://h/b"}, "url: 'http://h/b' is no https"),
        ({"path": "a/b", "url": "http://h/b", "md5": "0"}, "url: 'http://h/b' is no https"),
        ({"path": "a/b", "url": "file:///b"}, "url: 'file:///b' is no https"),
        ({"path": ["a", "b"], "url": ["https://h/a", "ftp://h/b"]}, "url: 'ftp://h/b' is no"),
        ({"path": "../b", "url": "https://h/b"}, "path: '../b' .* may leave the repository"),
        ({"path": "a/../../b", "url": "https://h/b"}, "path: 'a/../../b' .* may leave"),
        ({"path": ["a", "/b"], "url": ["https://h/a", "https://h/b"]}, "path: '/b' .* may leave"),
        ({"path": "~/b", "url": "https://h/b"}, "path: '~/b' .* may leave"),
        ({"files": [{"path": "/b", "url": "https://h/b"}]}, r"files\[0\].path: '/b' .* may leave"),
    ],
)
def test_addresses_and_places_of_downloads(entry, fault) -> None:
    kind = "source" if "files" in entry else "dataset"
    config = {f"{kind}s": {"x": entry}}
    if fault is None:
        remote_files(config, f"{kind}~x")
    else:
        with pytest.raises(UserError, match=f"{kind} x: {fault}"):
            remote_files(config, f"{kind}~x")


@pytest.mark.parametrize("link", ["in/deep", "in/deep/data.bin.part"])
def test_a_link_leads_no_download_out_of_the_repository(get, server, tmp_path, link) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    (root / "in/deep").mkdir(parents=True)
    if link.endswith("deep"):
        (root / link).rmdir()
    (root / link).symlink_to(outside / "x" if link.endswith("part") else outside)
    file = RemoteFile("in/deep/data.bin", server.url, digest=SHA256)
    with pytest.raises(UserError, match="in/deep/data.bin: a link leads out of the repository"):
        retrieve("source~x", [file], root)
    assert not list(outside.iterdir()) and not server.requests
    # The first folder may be on another disk.
    (root / "resources").symlink_to(outside)
    retrieve("source~x", [RemoteFile("resources/data.bin", server.url, digest=SHA256)], root)
    assert (outside / "data.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("url", "allowed"),
    [("https://h/x", "=https"), ("http://h/x", "=http,https"), ("file:///x", "=file,https")],
)
def test_no_address_sends_on_to_another_protocol(tmp_path, monkeypatch, url, allowed) -> None:
    commands = []

    def refuse(command, **_):
        commands.append(command)
        raise FileNotFoundError

    monkeypatch.setattr(remote.subprocess, "run", refuse)
    with pytest.raises(UserError):
        remote.download(RemoteFile("x", url), tmp_path / "x")
    (command,) = commands
    for option in ("--proto", "--proto-redir"):
        assert command[command.index(option) + 1] == allowed


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match="x is in place but is no file"):
        retrieve("source~x", [RemoteFile("x", "https://h/x")], tmp_path)


def test_every_download_of_the_configurations_has_a_checksum(root) -> None:
    def entries(value):
        if isinstance(value, dict) and "url" in value:
            yield value
        for part in value.values() if isinstance(value, dict) else value:
            if isinstance(part, dict | list):
                yield from entries(part)

    files = sorted((root / "config").glob("*.yaml"))
    found = [(file.name, entry) for file in files for entry in entries(read_yaml(file))]
    assert len(found) > 10
    for name, entry in found:
        # Nobody here has had the published labels; git's digest of them is known.
        assert {"sha256", "git_blob"} & entry.keys(), (name, entry)
