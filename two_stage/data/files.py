"""Files as they lie on the disk: how each is packed and written, and what is wrong with one that cannot be read.

A `.gz` or `.zst` behind the name is unpacked on the way.
"""

import codecs
import gzip
import hashlib
import io
import os
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from two_stage.command_line.exits import Refusal

ARCHIVES = {".gz": "gzip", ".zst": "zstd"}
CUT = "unexpected end of data"  # what Python says of a character that the file ends within
ESCAPED = re.compile("[\udc80-\udcff]")  # what Python makes of a byte that is not UTF-8, where it is asked to go on


def file_format(path: str) -> str:
    """The ending of `path` that says how to read it, without an archive's: "csv" for `train.csv.gz`."""
    inner = Path(path).with_suffix("") if archive(path) else Path(path)
    return inner.suffix.removeprefix(".").lower()


def archive(path: str) -> str | None:
    """How the file is packed, "gzip" or "zstd"; None of a plain file."""
    return ARCHIVES.get(Path(path).suffix.lower())


def check_files(paths: list[str], formats: tuple[str, ...]) -> None:
    """Refuse before any work a file that is not there, given twice, empty, UTF-16, or of a format that nobody reads.

    Raises:
        Refusal: naming the file and what would do instead.
    """
    for number, path in enumerate(paths):
        _check_opens(path)
        if any(os.path.samefile(path, other) for other in paths[:number]):
            raise Refusal(f"{path}: is given twice, and each row would count twice; name it once")
        if Path(path).stat().st_size == 0:
            raise Refusal(f"{path}: the file is empty; write it anew, or leave it out")
        if file_format(path) not in formats:
            known = ", ".join(f".{name}" for name in formats)
            raise Refusal(f"{path}: cannot tell the format by this ending; known: {known}, each also with .gz or .zst")
        if file_format(path) != "parquet":
            _check_encoding(path)


def _check_opens(path: str) -> None:
    """Refuse what is no plain file; a pipe, opened, would wait for its other end."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode):
            open(path, "rb").close()
            return
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL within the name
        raise Refusal(f"{path}: no such file (the current folder is {Path.cwd().name}/)") from None
    except OSError as error:  # no permission, links that lead in a circle, a name too long
        raise Refusal(f"{path}: cannot be opened: {error.strerror}; mend that, or name another file") from error
    if stat.S_ISDIR(mode):
        raise Refusal(f"{path}: is a folder; name the files in it")
    raise Refusal(f"{path}: is a pipe or a device, and files are read more than once; write it to a file")


def _check_encoding(path: str) -> None:
    """Refuse UTF-16, which without its mark would pass for UTF-8 with NULs between the letters."""
    with readable(path), open_bytes(path) as file:
        head = file.read(16)
    name = "UTF-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else ""
    for order, pattern in (("UTF-16LE", rb"(?:[\t -~]\0){4,}"), ("UTF-16BE", rb"(?:\0[\t -~]){4,}")):
        name = order if re.fullmatch(pattern, head[:8]) else name
    if name:
        raise Refusal(f"{path} line 1: not UTF-8 but {name}; convert it, say with iconv -f {name} -t UTF-8")


def file_sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def nearest_existing(path: Path) -> Path:
    """The path itself, or the nearest one above it that is there."""
    return next(there for there in (path, *path.absolute().parents) if there.exists())


def open_text(path: str) -> IO[str]:
    """Open `path` as UTF-8 text, unpacked if it is an archive; a byte-order mark is dropped."""
    return io.TextIOWrapper(open_bytes(path), encoding="utf-8-sig", newline="")


def open_bytes(path: str) -> Any:
    """Open `path` for its bytes, unpacked if it is an archive."""
    return open(path, "rb") if archive(path) is None else _open_archive(path)


def open_part(path: str, start: int, stop: int) -> IO[str]:
    """The bytes from `start` to `stop` of a plain file, held in memory, as `open_text` would give them."""
    with open(path, "rb") as file:
        file.seek(start)
        part = io.BytesIO(file.read(stop - start))
    # further on in a file, the bytes of a byte-order mark are a character
    return io.TextIOWrapper(part, encoding="utf-8" if start else "utf-8-sig", newline="")


def _open_archive(path: str) -> Any:
    """The unpacked bytes of an archive; an archive that is cut off raises at its end."""
    if archive(path) == "gzip":
        return gzip.open(path)
    import pyarrow  # its zstd reads on behind the first frame and notices a cut, which the package zstandard does not

    return pyarrow.input_stream(path, compression="zstd")


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Say of a file that breaks off while it is read what is wrong with it.

    Raises:
        Refusal: not UTF-8, or an archive that is broken or cut off.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        raise Refusal(_undecodable(path, error)) from error
    except (EOFError, OSError, zlib.error) as error:
        what = f"broken {archive(path)} archive" if archive(path) else "cannot be read to its end"
        hint = f"; if it is not packed, take {Path(path).suffix} off its name" if archive(path) else ""
        raise Refusal(f"{path}: {what}: {told_error(error)}; copy or pack it anew{hint}") from error


def _undecodable(path: str, error: UnicodeDecodeError) -> str:
    """What is said of text that is not UTF-8, by its first line that is not."""
    if file_format(path) == "parquet":
        return f"{path}: holds a text that is not UTF-8; write it anew"
    offset = 0
    with (
        readable(path),  # a line of an archive may go on to where that is broken
        io.TextIOWrapper(open_bytes(path), encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        for number, line in enumerate(file, start=1):
            if broken := ESCAPED.search(line):
                offset += len(line[: broken.start()].encode())
                found = f"{path} line {number}: not UTF-8 (byte 0x{ord(broken[0]) - 0xDC00:02x} at offset {offset})"
                cut = "; it ends within a character: if it was cut off, copy it anew" * (error.reason == CUT)
                return f"{found}{cut}; convert it, say with iconv -f cp1252 -t utf-8"
            offset += len(line.encode())
    return f"{path}: not UTF-8; was it written to while it was read?"


def told_error(error: BaseException) -> str:
    """What a library says of a file, in one line, with what could not be seen written out."""
    line = " ".join(str(error).splitlines())[:300]
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in line).strip()
