"""Reads prepared TFDS data sets without TensorFlow, and prepares those that need no TensorFlow."""

import contextlib
import importlib.util
import logging as std_logging
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import psutil
from absl import logging

from plasticity_jax.data import resize as resizing
from plasticity_jax.data.records import Records, among, line, split_of, unreadable
from plasticity_jax.errors import DataError

CHUNK = 5000  # examples read at once: bounds the memory held besides the result
LARGER = 10  # factor by which fewer are read if they are resized, since they are larger


def find(name: str, root: pathlib.Path) -> Any:
    """The read-only TFDS builder of a data set prepared in `root`; None if there is none.  Never uses the network.

    `root` may also be the directory of the data set itself.
    """
    import tensorflow_datasets as tfds  # takes half a second

    try:
        parsed, _ = tfds.core.naming.parse_builder_name_kwargs(name)
    except ValueError:
        raise DataError(f"data set {name!r}: not a valid name; give NAME[/CONFIG][:VERSION], or digits") from None
    if parsed.namespace:
        raise DataError(f"data set {name!r}: sets of other hubs cannot be read, only those of TFDS itself")
    try:
        if not root.is_dir():
            return None
        return tfds.core.read_only_builder.builder_from_files(name, data_dir=str(root))
    except tfds.core.registered.DatasetNotFoundError:
        above = _itself(name, root)
        return find(*above) if above else None
    except Exception as error:  # tfds raises whatever its readers of JSON and protocol buffers do
        raise DataError(f"data set {name!r} in {root} cannot be opened ({line(error)}); prepare it again") from error


def _itself(name: str, root: pathlib.Path) -> tuple[str, pathlib.Path] | None:
    """The name and the directory of data sets, if `root` is the set itself or one version of it."""
    import tensorflow_datasets as tfds

    parsed, options = tfds.core.naming.parse_builder_name_kwargs(name)
    version = (root / "dataset_info.json").exists()
    for place in (root, *root.parents[:2]) if version else (root,):
        if place.name == parsed.name:
            return (f"{name}:{root.name}" if version and "version" not in options else name), place.parent
    return None


def readable(builder: Any) -> Any:
    """The builder itself; for CIFAR stored as TFRECORD, without TensorFlow, one that is prepared in array_record
    format.

    Its directory is `array_record/` in the same directory of data sets.
    """
    if (
        builder.name not in ("cifar10", "cifar100")
        or builder.info.file_format.value != "tfrecord"
        or importlib.util.find_spec("tensorflow") is not None
    ):
        return builder
    from plasticity_jax.data import cifar

    root = pathlib.Path(builder.data_path).parents[1]
    beside = root / "array_record"
    prepared = find(builder.name, beside)
    if prepared is None:
        try:
            cifar.prepare(builder.name, beside, root / "downloads")
        except DataError as error:
            raise DataError(
                f"data set {builder.name} in {builder.data_path} is stored as tfrecord, which only TensorFlow can "
                f"read, and cannot be prepared again in {beside}: {error}"
            ) from error
        prepared = find(builder.name, beside)
    return prepared


def prepare(name: str, root: pathlib.Path) -> Any:
    """Prepares a data set that needs no TensorFlow; for others, the error says how to prepare them."""
    import tensorflow_datasets as tfds

    parsed, options = tfds.core.naming.parse_builder_name_kwargs(name)
    plain = parsed.name
    try:
        newest = str(tfds.builder_cls(plain).VERSION)
    except tfds.core.registered.DatasetNotFoundError:
        raise DataError(f"data set {name!r} is neither prepared in {root} nor known to TFDS; check the name") from None
    except ImportError:
        newest = ""  # a known set whose description needs TensorFlow
    if plain in ("cifar10", "cifar100") and options.get("version", newest) == newest:
        from plasticity_jax.data import cifar

        cifar.prepare(plain, root)
        return find(name, root)
    built = "/".join([plain, *([options["config"]] if "config" in options else [])])
    raise DataError(
        f"data set {name!r} is not prepared in {root}; with TensorFlow and a network, run: "
        f"tfds build {built} --file_format=array_record --data_dir={root}"
    )


def read(
    builder: Any,
    holdout: tuple[float, int] | None = None,
    test_split: str = "test",
    resize: int = 0,
    on_disk: bool = False,
    labels: Mapping[str, np.ndarray] | None = None,
) -> tuple[dict[str, Any], int, tuple[str, ...]]:
    """Decodes the split `train` and the test set; returns the arrays, the number of classes, and notes.

    Args:
      holdout: for a set without a test split, the share of `train` to hold out, and the seed that selects it.
      test_split: the name of the test split.
      resize: the side to which `resize.fit` resizes all images; 0 to keep their sizes.
      on_disk: keep the images on disk, as `Records`.
      labels: `train_labels` and `test_labels` of images on disk, if known, so that they need not be read.
    """
    import tensorflow_datasets as tfds

    keys, features = builder.info.supervised_keys, builder.info.features
    features = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    image, label = keys if keys and len(keys) == 2 and all(isinstance(k, str) for k in keys) else ("image", "label")
    kinds = {image: tfds.features.Image, label: tfds.features.ClassLabel}
    for key, kind in kinds.items():
        if not isinstance(features.get(key), kind):
            types = {k: type(v).__name__ for k, v in features.items()}
            raise DataError(
                f"data set {builder.name} is no image classification: {key} is no {kind.__name__} in {types}"
            )
    classes = features[label].num_classes
    arrays: dict[str, Any] = {}
    splits = {"train": "train"} if holdout else {"train": "train", "test": test_split}
    if holdout and test_split in builder.info.splits:
        raise DataError(f"data set {builder.name} has a split {test_split}; set config.holdout=0")
    for side, split in splits.items():
        if split not in builder.info.splits:
            other = "; config.test_split names another, and config.holdout=0.2 holds out a fifth of train"
            hint = other if side == "test" else "; it is needed"
            raise DataError(f"data set {builder.name} has no split {split}, only {sorted(builder.info.splits)}{hint}")
        size = builder.info.splits[split].num_examples
        logging.info("reading %s %s: %d images", builder.name, split, size)
        if on_disk:
            kept = split_of(builder, split, _where(builder, split), image, label, resize)
            shape = arrays["train_images"].shape[1:] if arrays else ()
            arrays[f"{side}_images"] = Records([(kept, np.arange(size))], shape)
            arrays[f"{side}_labels"] = kept.labels(size) if labels is None else np.zeros(size, np.int32)
        else:
            arrays[f"{side}_images"], arrays[f"{side}_labels"] = _stack(builder, split, size, image, label, resize)
    if not holdout:
        return arrays | dict(labels or {}), classes, ()
    share, seed = holdout
    size = len(arrays["train_labels"])
    order, count = np.random.default_rng([seed, zlib.crc32(b"holdout")]).permutation(size), round(share * size)
    if not 0 < count < size:
        raise DataError(f"data set {builder.name}: config.holdout={share} of {size} images leaves one side empty")
    sides = {"test": np.sort(order[:count]), "train": np.sort(order[count:])}
    parts = {
        f"{side}_{kind}": among(arrays[f"train_{kind}"], at)
        for side, at in sides.items()
        for kind in ("images", "labels")
    }
    note = f"no test split: {count:,} of the {size:,} images of train are held out as one (holdout_seed={seed})"
    return parts | dict(labels or {}), classes, (note,)


def _stack(builder: Any, split: str, size: int, image: str, label: str, side: int) -> tuple[np.ndarray, np.ndarray]:
    where = _where(builder, split)
    images, labels, at = None, np.zeros(size, np.int32), 0
    examples = _chunks(builder, split, max(1, CHUNK // LARGER) if side else CHUNK)
    while at < size:
        try:
            chunk = next(examples)
        except DataError:
            raise
        except Exception as error:  # array_record, pillow and tfds raise different types
            raise unreadable(where, error) from error
        for example in chunk:
            picture = example[image]
            if picture.dtype != np.uint8:
                raise DataError(f"{where}: images are {picture.dtype}; only uint8 can be used")
            if side:
                picture = resizing.fit(picture, side)
            if images is None:
                _check_memory(where, size, picture)
                images = np.zeros((size, *picture.shape), np.uint8)
            if picture.shape != images.shape[1:]:
                raise DataError(
                    f"{where}: images differ in size, {images.shape[1:]} and {picture.shape}; config.resize=SIDE "
                    "brings them to one"
                )
            images[at], labels[at] = picture, example[label]
            at += 1
    if images is None:
        raise DataError(f"{where} is empty")
    return images, labels


def _where(builder: Any, split: str) -> str:
    return f"data set {builder.name} in {builder.data_path}, split {split}"


def is_too_large(builder: Any, side: int) -> bool:
    """Whether the machine lacks memory for all images of a set that can also be read from disk."""
    try:
        builder.as_data_source(split="train")
    except Exception:  # as above; reading raises the error
        return False
    import tensorflow_datasets as tfds

    features = builder.info.features.items()
    shapes = [feature.shape for _, feature in features if isinstance(feature, tfds.features.Image)]
    image = max(((side or shape[0] or 0) * (side or shape[1] or 0) * (shape[2] or 3) for shape in shapes), default=0)
    return image * builder.info.splits.total_num_examples > psutil.virtual_memory().available


def _check_memory(where: str, count: int, image: np.ndarray) -> None:
    """Raises a DataError if this number of images exceeds the free memory of the machine."""
    need, available = count * image.nbytes, psutil.virtual_memory().available
    if need > available:
        raise DataError(
            f"{where}: {count:,} images of {'x'.join(map(str, image.shape))} need {need / 1e9:.1f} GB of memory, and "
            f"only {available / 1e9:.1f} GB are free; take a smaller config.resize or data set"
        )


def _chunks(builder: Any, split: str, count: int) -> Iterator[list[dict[str, np.ndarray]]]:
    try:
        source = builder.as_data_source(split=split)  # as tfds.data_source does
    except NotImplementedError:  # the file format has no random access, as TFRECORD, TFDS's default
        yield from _tensorflow_chunks(builder, split, count)
        return
    for start in range(0, len(source), count):
        yield source.__getitems__(range(start, min(start + count, len(source))))


def _tensorflow_chunks(builder: Any, split: str, count: int) -> Iterator[list[dict[str, np.ndarray]]]:
    if importlib.util.find_spec("tensorflow") is None:
        raise DataError(
            f"data set {builder.name} in {builder.data_path} is stored as {builder.info.file_format.value}, which only "
            "TensorFlow can read; pip install tensorflow-cpu, or prepare it with --file_format=array_record"
        )
    import tensorflow as tf
    import tensorflow_datasets as tfds

    tf.config.set_visible_devices([], "GPU")  # otherwise it takes all memory, and jax gets none
    in_order = tfds.ReadConfig(interleave_cycle_length=1)  # file by file, in the order of the data source
    chunk = []
    for example in tfds.as_numpy(builder.as_dataset(split=split, read_config=in_order)):
        chunk.append(example)
        if len(chunk) == count:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppresses TFDS's log messages below errors, about the files it reads and directories it does not find."""

    def keep(record: std_logging.LogRecord) -> bool:
        return record.levelno >= std_logging.ERROR or "tensorflow_datasets" not in record.pathname

    logger = std_logging.getLogger("absl")
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)
