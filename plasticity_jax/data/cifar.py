"""Prepares CIFAR-10 and CIFAR-100 for TFDS without TensorFlow.

TFDS's builders need TensorFlow to unpack the archive, to read the binary files and to encode PNGs.  Here these three
steps use tarfile, numpy and pillow; address, checksum, name, version and features are those of TFDS, so that
`tfds.data_source("cifar10", data_dir=...)` reads the result as if TFDS had made it.

The archive is downloaded (https://www.cs.toronto.edu/~kriz, 170 MB; the download is untested, the rest is tested on a
small archive of the same format), or without a network provided by the user:
`DATA_DIR/downloads/manual/cifar-10-binary.tar.gz` (or `cifar-100-binary.tar.gz`).
"""

import contextlib
import io
import pathlib
import sys
import tarfile
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import requests
import tensorflow_datasets as tfds
from absl import logging
from PIL import Image

from plasticity_jax.errors import DataError

PATIENCE = 5.0  # seconds until the download server counts as unreachable
SHAPE = (3, 32, 32)  # channels first, as in the binary files


def prepare(name: str, root: pathlib.Path, downloads: pathlib.Path | None = None) -> None:
    """Writes `root/name/VERSION` in array_record format; `name` is `cifar10` or `cifar100`.

    Archives are in `downloads`, by default `root/downloads`.

    Raises:
      DataError: no archive and no network, a checksum that differs from TFDS's, or a directory that cannot be written.
    """
    url, expected = official(name)
    archive = expected.filename or url.rpartition("/")[2]
    downloads = downloads or root / "downloads"
    manual = downloads / "manual" / archive
    resource = tfds.core.download.resource
    kept = downloads.rglob(resource.get_dl_fname(url, expected.checksum))
    if not manual.exists() and not any(map(resource.is_locally_cached, kept)) and (problem := unreachable(url)):
        raise DataError(
            f"offline and not prepared: {name} is not in {root}, and {url} cannot be reached ({problem}); "
            f"put {archive} into {manual.parent}, or name a data_dir that holds {name}"
        )
    builder = _builder_class(name, url, expected)(data_dir=str(root), file_format="array_record")
    config = tfds.download.DownloadConfig(try_download_gcs=False, force_checksums_validation=True)
    logging.info("preparing %s in %s", name, builder.data_path)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            builder.download_and_prepare(download_dir=str(downloads), download_config=config)
    except DataError:
        raise
    except tfds.core.download.download_manager.NonMatchingChecksumError as error:
        where = manual if manual.exists() else url
        raise DataError(
            f"{where} is not the official archive (wrong checksum); replace it by {archive} of {url}"
        ) from error
    except (OSError, EOFError, tarfile.TarError, tfds.core.download.util.DownloadError) as error:
        if (pathlib.Path(builder.data_path) / "dataset_info.json").exists():
            return  # another process has written it
        problem = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{name} cannot be prepared in {root}: {problem}") from error


def official(name: str) -> tuple[str, Any]:
    """Address of the binary archive, and TFDS's record of its size, sha256 and file name."""
    ((url, expected),) = tfds.builder_cls(name).url_infos.items()
    return url, expected


def unreachable(url: str) -> str:
    """Why `url` cannot be reached, or an empty string.

    Checked in advance, because TFDS retries for minutes; in a thread, because a DNS lookup has no time limit.
    """
    outcome: list[str] = []

    def ask() -> None:
        try:
            with requests.get(url, timeout=PATIENCE, stream=True) as answer:  # without the content
                outcome.append("" if answer.ok else f"HTTP {answer.status_code}")
        except requests.RequestException as error:
            outcome.append(type(error).__name__)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(2 * PATIENCE)
    return outcome[0] if outcome else f"no answer within {2 * PATIENCE:.0f} s"


def _builder_class(name: str, url: str, expected: Any) -> Any:
    base = tfds.builder_cls(name)

    class Cifar(base, skip_registration=True):  # type: ignore[call-arg, misc, valid-type]
        """TFDS's builder with the steps that need TensorFlow replaced."""

        url_infos = {url: expected}

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
            path = dl_manager.download(url)
            # TFDS trusts an archive of an earlier download by its file name.
            if tfds.core.download.checksums.compute_url_info(path) != expected:
                raise DataError(f"{path} is damaged (wrong checksum); delete it")
            official_info = self._cifar_info
            splits = {"train": official_info.train_files, "test": official_info.test_files}
            wanted = [*official_info.label_files, *splits["train"], *splits["test"]]
            files = read_archive(pathlib.Path(path), [official_info.prefix + file for file in wanted])
            for key, file in zip(official_info.label_keys, official_info.label_files, strict=True):
                self.info.features[key].names = files[official_info.prefix + file].decode().split()
            return {
                split: self._generate_examples(f"{split}_", [files[official_info.prefix + file] for file in names])
                for split, names in splits.items()
            }

        def _generate_examples(self, split_prefix: str, filepaths: list[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
            keys, index = self._cifar_info.label_keys, 0
            for content in filepaths:
                for labels, image in read_records(content, len(keys)):
                    example = {key: int(label) for key, label in zip(keys, labels, strict=True)}
                    yield index, example | {"id": f"{split_prefix}{index:05d}", "image": _png(image)}
                    index += 1

    Cifar.name = name  # the name of files and directories
    return Cifar


def read_archive(path: pathlib.Path, wanted: list[str]) -> dict[str, bytes]:
    """Contents of the `wanted` members of a .tar.gz; nothing is unpacked to disk.

    Raises:
      DataError: a member is missing.
    """
    files = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:  # in one pass: going back would decompress again
            if member.name in wanted and (file := archive.extractfile(member)):
                files[member.name] = file.read()
    if missing := sorted(set(wanted) - set(files)):
        raise DataError(f"{path} lacks {missing}; it is not the binary version of CIFAR")
    return files


def read_records(content: bytes, labels: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Records of the binary format, `labels` label bytes and 3072 of the image: (uint8 [labels], uint8 [32, 32, 3])."""
    size = labels + int(np.prod(SHAPE))
    if len(content) % size:
        raise DataError(
            f"a binary file of {len(content)} bytes is no whole number of {size}-byte records; the archive is damaged"
        )
    for record in np.frombuffer(content, np.uint8).reshape(-1, size):
        yield record[:labels], record[labels:].reshape(SHAPE).transpose(1, 2, 0)


def _png(image: np.ndarray) -> io.BytesIO:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)  # level 6 takes four times as long for a tenth
    buffer.seek(0)
    return buffer
