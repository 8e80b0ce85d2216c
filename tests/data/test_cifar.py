"""CIFAR without TensorFlow, on a small archive in the official binary format."""

import contextlib
import functools
import http.server
import importlib.util
import io
import json
import shutil
import socket
import tarfile
import threading
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds

from plasticity_jax.data import cifar, datasets
from plasticity_jax.errors import DataError

NAMES10 = "airplane automobile bird cat deer dog frog horse ship truck".split()


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    """Neither the user's cache nor a proxy takes part, and a server that does not answer is given up after a second."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(cifar, "PATIENCE", 1.0)


def make_archive(path, name, rng, leave_out=""):
    """Write an archive like the official one; returns {split: (labels [N, k], images [N, 32, 32, 3])}."""
    if name == "cifar10":
        folder, keys = "cifar-10-batches-bin", [NAMES10]
        files = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
        texts = {"batches.meta.txt": NAMES10}
    else:
        folder, keys = "cifar-100-binary", [[f"coarse{i}" for i in range(20)], [f"fine{i}" for i in range(100)]]
        files = {"train": ["train.bin"], "test": ["test.bin"]}
        texts = {"coarse_label_names.txt": keys[0], "fine_label_names.txt": keys[1]}
    contents = {file: ("\n".join(words) + "\n\n").encode() for file, words in texts.items()} | {"readme.html": b"hi"}
    wrote = {}
    for split, batches in files.items():
        rows = len(keys[-1]) * len(batches)  # enough per file for images of each class
        labels = np.stack([rng.permutation(np.arange(rows) % len(words)) for words in keys], axis=1).astype(np.uint8)
        images = rng.integers(0, 256, (rows, 32, 32, 3), np.uint8)
        records = np.concatenate([labels, images.transpose(0, 3, 1, 2).reshape(rows, -1)], axis=1)
        contents |= {file: part.tobytes() for file, part in zip(batches, np.split(records, len(batches)), strict=True)}
        wrote[split] = labels, images
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for file, content in contents.items():
            if file != leave_out:
                member = tarfile.TarInfo(f"{folder}/{file}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return wrote


def declare(monkeypatch, url, path):
    """Make `path`, served at `url`, the official archive."""
    expected = tfds.core.download.checksums.compute_url_info(path)
    monkeypatch.setattr(cifar, "official", lambda name: (url, expected))


NOWHERE = "http://127.0.0.1:9/"  # nothing listens at the discard port


@pytest.fixture
def server(tmp_path):
    """A web server for tmp_path/www; yields its address."""
    (tmp_path / "www").mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def copyfile(self, source, outputfile):
            with contextlib.suppress(ConnectionError):  # the client of `unreachable` disconnects before the content
                super().copyfile(source, outputfile)

    handler = functools.partial(Quiet, directory=str(tmp_path / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}/"
        httpd.shutdown()
        thread.join()


def check(data_dir, name, wrote):
    """Assert that TFDS itself, and then `datasets`, read the content of the archive."""
    for split, (labels, images) in wrote.items():
        examples = {e["id"].decode(): e for e in tfds.data_source(name, split=split, data_dir=str(data_dir))}
        assert sorted(examples) == [f"{split}_{i:05d}" for i in range(len(images))]
        keys = ["label"] if name == "cifar10" else ["coarse_label", "label"]
        for i, example in enumerate(examples[key] for key in sorted(examples)):
            np.testing.assert_array_equal(example["image"], images[i])
            assert [example[key] for key in keys] == labels[i].tolist()
    data = datasets.load(name, str(data_dir))
    for split, stored in (("train", data.train_images), ("test", data.test_images)):
        assert sorted(map(bytes, stored)) == sorted(map(bytes, wrote[split][1]))
    assert data.version == "3.0.2" and data.classes == {"cifar10": 10, "cifar100": 100}[name]


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_archive_put_there_by_the_user(tmp_path, monkeypatch, name):
    archive = tmp_path / "downloads" / "manual" / f"cifar-{name[5:]}-binary.tar.gz"
    wrote = make_archive(archive, name, np.random.default_rng(0))
    declare(monkeypatch, NOWHERE + archive.name, archive)
    datasets.load(name, str(tmp_path))  # prepares the data
    archive.unlink()
    check(tmp_path, name, wrote)
    builder = tfds.builder(name, data_dir=str(tmp_path))
    first = builder.info.features["label"].int2str(0)
    assert first == {"cifar10": "airplane", "cifar100": "fine0"}[name]
    assert not list((tmp_path / name).glob("incomplete*"))


def test_archive_from_the_network_is_fetched_once(tmp_path, monkeypatch, server):
    archive = tmp_path / "www" / "cifar-10-binary.tar.gz"
    wrote = make_archive(archive, "cifar10", np.random.default_rng(1))
    declare(monkeypatch, server + archive.name, archive)
    check_dir = tmp_path / "data"
    datasets.load("cifar10", str(check_dir))
    check(check_dir, "cifar10", wrote)
    archive.unlink()
    tfds.core.Path(check_dir / "cifar10").rmtree()
    datasets.load("cifar10", str(check_dir))  # from the download that was kept
    check(check_dir, "cifar10", wrote)


def test_prepared_data_need_no_archive(tmp_path, monkeypatch):
    archive = tmp_path / "downloads" / "manual" / "cifar-10-binary.tar.gz"
    wrote = make_archive(archive, "cifar10", np.random.default_rng(2))
    declare(monkeypatch, NOWHERE + archive.name, archive)
    datasets.load("cifar10", str(tmp_path))

    def fail(*args):
        raise AssertionError("asked for the archive of data that are there")

    monkeypatch.setattr(cifar, "prepare", fail)
    check(tmp_path, "cifar10", wrote)
    datasets.load("cifar10:3.0.2", str(tmp_path))


def refused(data_dir, *parts):
    with pytest.raises(DataError) as caught:
        datasets.load("cifar10", str(data_dir))
    line = str(caught.value)
    assert "\n" not in line and len(line) < 600
    for part in parts:
        assert part in line
    assert not list(data_dir.glob("cifar10/*"))  # nothing that a later start could mistake for data
    return line


def test_tfrecord_is_prepared_anew_beside_it(tmp_path, monkeypatch):
    """Without TensorFlow: the existing files remain, and array_record files below them are read from then on."""
    root = tmp_path / "data"
    archive = root / "downloads" / "manual" / "cifar-10-binary.tar.gz"
    wrote = make_archive(archive, "cifar10", np.random.default_rng(0))
    declare(monkeypatch, NOWHERE + archive.name, archive)
    cifar.prepare("cifar10", root)
    info = root / "cifar10" / "3.0.2" / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    before = sorted(path.name for path in info.parent.iterdir())
    data = datasets.load("cifar10", str(root))
    assert sorted(map(bytes, data.train_images)) == sorted(map(bytes, wrote["train"][1]))
    assert (root / "array_record" / "cifar10" / "3.0.2").is_dir()
    assert sorted(path.name for path in info.parent.iterdir()) == before
    archive.unlink()
    assert datasets.load("cifar10", str(root / "cifar10")).sha256 == data.sha256
    shutil.rmtree(root / "array_record")
    with pytest.raises(DataError, match=r"stored as tfrecord, .*TensorFlow.*offline and not prepared"):
        datasets.load("cifar10", str(root))


def test_wrong_archive_of_the_user_is_refused(tmp_path, monkeypatch):
    archive = tmp_path / "downloads" / "manual" / "cifar-10-binary.tar.gz"
    make_archive(archive, "cifar10", np.random.default_rng(3))
    declare(monkeypatch, NOWHERE + archive.name, archive)
    make_archive(archive, "cifar10", np.random.default_rng(4))  # valid, but another archive
    refused(tmp_path, "wrong checksum", str(archive))


def test_wrong_archive_of_the_network_is_refused(tmp_path, monkeypatch, server):
    archive = tmp_path / "www" / "cifar-10-binary.tar.gz"
    make_archive(archive, "cifar10", np.random.default_rng(3))
    declare(monkeypatch, server + archive.name, archive)
    make_archive(archive, "cifar10", np.random.default_rng(4))
    refused(tmp_path / "data", "wrong checksum", server)


def test_archive_that_was_damaged_after_its_download_is_refused(tmp_path, monkeypatch, server):
    archive = tmp_path / "www" / "cifar-10-binary.tar.gz"
    make_archive(archive, "cifar10", np.random.default_rng(5))
    declare(monkeypatch, server + archive.name, archive)
    data_dir = tmp_path / "data"
    datasets.load("cifar10", str(data_dir))
    tfds.core.Path(data_dir / "cifar10").rmtree()
    (kept,) = (path for path in (data_dir / "downloads").rglob("*.gz") if path.is_file())
    content = kept.read_bytes()
    kept.write_bytes(content[: len(content) // 2])
    refused(data_dir, "wrong checksum", str(kept), "delete it")


def test_archive_without_a_file_is_refused(tmp_path, monkeypatch):
    archive = tmp_path / "downloads" / "manual" / "cifar-10-binary.tar.gz"
    make_archive(archive, "cifar10", np.random.default_rng(6), leave_out="data_batch_3.bin")
    declare(monkeypatch, NOWHERE + archive.name, archive)
    refused(tmp_path, "lacks", "data_batch_3.bin")


def test_offline_fails_at_once(tmp_path, monkeypatch):
    archive = tmp_path / "elsewhere" / "cifar-10-binary.tar.gz"
    make_archive(archive, "cifar10", np.random.default_rng(7))
    declare(monkeypatch, NOWHERE + archive.name, archive)
    start = time.monotonic()
    refused(tmp_path / "data", "offline and not prepared", "downloads/manual", archive.name)
    assert time.monotonic() - start < 5
    assert not (tmp_path / "data").exists()


def test_two_processes_may_prepare_at_once(tmp_path, monkeypatch):
    archive = tmp_path / "downloads" / "manual" / "cifar-10-binary.tar.gz"
    wrote = make_archive(archive, "cifar10", np.random.default_rng(9))
    declare(monkeypatch, NOWHERE + archive.name, archive)
    read_archive, others = cifar.read_archive, []

    def overtaken(*args):
        if not others:
            others.append(True)
            cifar.prepare("cifar10", tmp_path)
        return read_archive(*args)

    monkeypatch.setattr(cifar, "read_archive", overtaken)
    datasets.load("cifar10", str(tmp_path))
    assert others
    check(tmp_path, "cifar10", wrote)


def test_what_a_server_answers_is_told(tmp_path, server):
    assert cifar.unreachable(server + "absent.tar.gz") == "HTTP 404"
    (tmp_path / "www" / "there.tar.gz").write_bytes(b"x")
    assert cifar.unreachable(server + "there.tar.gz") == ""


def test_server_that_never_answers(monkeypatch):
    monkeypatch.setattr(cifar, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "Timeout" in cifar.unreachable(f"http://127.0.0.1:{silent.getsockname()[1]}/x.tar.gz")


def test_directory_that_cannot_be_written(tmp_path, monkeypatch, server):
    archive = tmp_path / "www" / "cifar-10-binary.tar.gz"
    make_archive(archive, "cifar10", np.random.default_rng(8))
    declare(monkeypatch, server + archive.name, archive)
    (tmp_path / "data").write_text("a file where a directory should be")
    with pytest.raises(DataError, match="cannot be prepared in .*data: "):
        datasets.load("cifar10", str(tmp_path / "data"))


def test_official_addresses_and_checksums_are_those_of_tfds():
    url, expected = cifar.official("cifar10")
    assert url == "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    assert expected.checksum == "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
    url, expected = cifar.official("cifar100")
    assert url == "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
    assert expected.checksum == "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"


def test_records_of_a_cut_file_are_refused():
    with pytest.raises(DataError, match="3073-byte records"):
        list(cifar.read_records(bytes(3073 * 2 - 1), 1))
