"""A folder of images as a data set: a class per subfolder, in sorted order. Pillow reads the files.

In: a folder of subfolders, or one with `train` and `val` or `test`, which hold the same classes. Out: columns `x`, f32
`[N, 3, H, W]` in [0, 1] (`[N, 1, H, W]` with `grey`), and `label`, i32 `[N]`. Every file's header is read at once, so
a picture of another size is refused before training; where not all of them fit into memory, a picture is decoded when
its batch needs it. A picture stands upright, as its EXIF orientation says.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ...dsl.errors import NncError
from ...dsl.files import open_regular
from ..call.column import Array, Column, Rows, fits
from ..call.messages import listed
from ..extras import optional
from .dataset import Dataset
from .files import Columns, is_folder, malformed, unreadable
from .format import Format, Option
from .table import Schema

_ON_ITS_SIDE = (5, 6, 7, 8)  # EXIF orientations
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_IMAGES = f"images ({' '.join(SUFFIXES)})"
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # whatever a file is called: others run programs
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")  # eight bits a channel


def read(path: Path, schema: Schema | None, /, grey: bool) -> Dataset:
    train, held_out, classes = images(path, grey, schema.classes if schema is not None else None)
    return Dataset("", train, held_out, ("x", "label"), Schema(("x",), "label", classes))


def inputs(path: Path, options: Mapping[str, Any], _: Schema | None) -> Dataset:
    """One picture, or all that stand in a folder, by name."""
    paths = _pictures(path) if path.is_dir() else [path]
    if not paths:
        raise malformed(path, _IMAGES, "none")
    return Dataset("", {"x": _pixels(paths, options.get("grey", False), None)[0]}, None, ("x",))


def images(
    folder: Path, grey: bool, known: tuple[str, ...] | None = None
) -> tuple[Columns, Columns | None, tuple[str, ...]]:
    """Training set, what is held out where the folder says so, and the classes: those that are `known`, or in sorted
    order. Raises UnsupportedError (E0503) without Pillow, DataError for a folder or a class without images (E0620,
    E0621), a file that is no image or of another size than the first, and a class that is not known (E0621)."""
    pillow()
    is_folder(folder)
    held_out = next((p for p in (folder / "val", folder / "test") if p.is_dir()), None)
    if held_out is None or not (folder / "train").is_dir():
        classes = known or tuple(_classes(folder))
        return _part(folder, grey, classes, None)[0], None, classes
    classes = known or tuple(_classes(folder / "train"))
    train, size = _part(folder / "train", grey, classes, None)
    return train, _part(held_out, grey, classes, size)[0], classes


def pillow() -> Any:
    """The module `PIL.Image` (E0503 where Pillow is not installed)."""
    return optional("PIL.Image", "images", "images are read with Pillow")


def _classes(folder: Path) -> list[str]:
    found = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not found:
        raise malformed(folder, "a subfolder of images for each class", "no subfolder")
    return found


def _part(
    folder: Path, grey: bool, classes: Sequence[str], size: tuple[int, int] | None
) -> tuple[Columns, tuple[int, int]]:
    """The columns of one folder, whose pictures have `size` (height, width), or that of the first."""
    paths: list[Path] = []
    labels: list[int] = []
    for name in _classes(folder):
        if name not in classes:
            raise malformed(folder, f"the classes {listed(classes)}", f"`{name}` as well")
        found = _pictures(folder / name)
        if not found:
            raise malformed(folder / name, _IMAGES, "none", "each subfolder is a class: take out what is none")
        paths += found
        labels += [classes.index(name)] * len(found)
    x, size = _pixels(paths, grey, size)
    return {"x": x, "label": np.array(labels, np.int32)}, size


def _pictures(folder: Path) -> list[Path]:
    """The files of a folder that are called pictures; not the hidden ones that some systems put beside them."""
    found = (p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    return sorted(p for p in found if p.is_file())


def _pixels(paths: Sequence[Path], grey: bool, size: tuple[int, int] | None) -> tuple[Rows, tuple[int, int]]:
    """Pictures as `[N, 3, H, W]`, each looked at before one is decoded; and their size."""
    for path in paths:
        with _opened(path) as image:
            here = (image.height, image.width)
            if _orientation(image) in _ON_ITS_SIDE:
                here = here[::-1]
            if image.mode not in _MODES:
                raise malformed(path, "an image with 8 bits a channel", f"the mode {image.mode}")
        if not all(here):
            raise malformed(path, "an image with pixels", f"{here[0]} x {here[1]}")
        if size is not None and here != size:
            raise malformed(
                path,
                f"{size[0]} x {size[1]} pixels as in {paths[0]}",
                f"{here[0]} x {here[1]}",
                help="all images of a data set have one size: crop or scale them first",
            )
        size = size or here
    assert size is not None
    x = Column((len(paths), 1 if grey else 3, *size), np.dtype(np.float32), _reader(paths, grey, size))
    return x[:] if fits(x.nbytes) else x, size


def _orientation(image: Any) -> int:
    """How the EXIF data say a picture lies (1: as it stands), where a header can say so."""
    found = image.getexif().get(0x0112, 1) if image.format in ("JPEG", "MPO", "TIFF", "WEBP") else 1
    return found if isinstance(found, int) else 1


def _reader(paths: Sequence[Path], grey: bool, size: tuple[int, int]) -> Callable[[Array], Array]:
    def read(index: Array) -> Array:
        out = np.empty((len(index), 1 if grey else 3, *size), np.float32)
        for row, k in zip(out, index, strict=True):
            row[...] = picture(paths[k], grey, size)
        return out

    return read


def picture(path: Path, grey: bool, size: tuple[int, int] | None = None) -> Array:
    """One file as f32 `[3, H, W]` in [0, 1], or `[1, H, W]`; `size` is the (height, width) that it must have."""
    with _opened(path) as image:
        if _orientation(image) != 1:
            image = optional("PIL.ImageOps", "images", "images are read with Pillow").exif_transpose(image)
        pixels = np.asarray(image.convert("L" if grey else "RGB"))
    if size is not None and pixels.shape[:2] != size:
        raise malformed(path, f"{size[0]} x {size[1]} pixels", f"{pixels.shape[0]} x {pixels.shape[1]}")
    return (pixels[None] if grey else pixels.transpose(2, 0, 1)) / np.float32(255)


@contextmanager
def _opened(path: Path) -> Any:
    """An image whose header was read; every way reading fails is a DataError. Pillow reports damage as OSError,
    SyntaxError, ValueError and struct.error, depending on the format."""
    module = pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", module.DecompressionBombWarning)
            with open_regular(path) as file, module.open(file, formats=_FORMATS) as image:
                yield image
    except NncError:
        raise
    except (MemoryError, KeyboardInterrupt):
        raise
    except module.UnidentifiedImageError as e:
        raise malformed(path, "a complete image", f"nothing that is read as {', '.join(_FORMATS)}") from e
    except OSError as e:
        if e.errno is not None:
            raise unreadable(path, e) from e
        raise malformed(path, "a complete image", str(e).lower()) from e
    except Exception as e:
        raise malformed(path, "a complete image", str(e).lower() or type(e).__name__) from e


IMAGES = Format(
    name="images",
    about="A class per subfolder, or `train` and `val` (or `test`) with one each, all images of one size (needs "
    "`nnc[images]`): "
    "`x` f32[B, 3, H, W] in [0, 1], `label` i32[B].",
    example='images("folder", grey = false)',
    read=read,
    options=(
        Option("path", str, "the folder", is_path=True),
        Option("grey", bool, "one channel instead of three", False),
    ),
    takes="folder",
    suffixes=SUFFIXES,
    inputs=inputs,
)
