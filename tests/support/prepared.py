"""Small data sets in TFDS's own form, as `tfds build` prepares them: array_record files and their description."""

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

Split = tuple[Sequence[np.ndarray | bytes], Sequence[int]]  # images uint8 [H, W, C] or as PNG, and their labels


def png(image: np.ndarray | bytes) -> bytes:
    """The content of a PNG file."""
    if isinstance(image, bytes):
        return image
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return file.getvalue()


def write(
    root: Path,
    name: str,
    splits: Mapping[str, Split],
    names: Sequence[str],
    file_format: str = "array_record",
    shape: tuple[int | None, ...] = (),
) -> None:
    """Prepare the set `name` below `root`; the shape of its images is found by looking at them, unless it is given."""
    shapes = {image.shape for images, _ in splits.values() for image in images} if not shape else {shape}
    declared = tuple(sizes.pop() if len(sizes) == 1 else None for sizes in map(set, zip(*shapes, strict=True)))

    class Written(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = root

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=declared),
                "label": tfds.features.ClassLabel(names=list(names)),
            }
            features = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(
                builder=self, features=features, supervised_keys=("image", "label"), disable_shuffling=True
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in splits}

        def _generate_examples(self, split) -> Iterator:
            for number, (image, label) in enumerate(zip(*splits[split], strict=True)):
                yield number, {"image": io.BytesIO(png(image)), "label": names[label]}

    Written.name = name
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
        Written(data_dir=str(root), file_format=file_format).download_and_prepare()


def noise(count: int, classes: int, sizes: Sequence[tuple[int, int]], seed: int = 0) -> Split:
    """Noise whose brightness tells the class; the first class has as many images as all others together."""
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random(count) < 0.5, 0, rng.integers(1, classes, count))
    labels[:classes] = np.arange(classes)
    pick = rng.integers(0, len(sizes), count)
    images = [
        rng.integers(0, 128, (*sizes[i], 3), np.uint8) + np.uint8(127 * label // classes)
        for i, label in zip(pick, labels, strict=True)
    ]
    return images, labels.tolist()
