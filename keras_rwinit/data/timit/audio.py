"""Reads TIMIT's recordings, either NIST SPHERE as in the corpus or RIFF as many users convert them."""

from __future__ import annotations

import io
import re
import wave

import numpy as np
from numpy.typing import NDArray

from .damage import DamagedFileError

__all__ = ["SAMPLE_RATE", "read_audio"]

SAMPLE_RATE = 16_000

_MAGIC = b"NIST_1A\n"
_BYTE_ORDERS = {"01": "<i2", "10": ">i2"}
_MUST_BE = {"sample_rate": SAMPLE_RATE, "sample_n_bytes": 2, "channel_count": 1}


def read_audio(content: bytes, path: str) -> NDArray[np.int16]:
    """Returns the samples of a recording of one channel, 16 bits, 16 kHz.

    The first bytes tell the two forms apart, since the corpus calls its SPHERE files .WAV as well.

    Args:
        content: The whole file.
        path: Name of the file, for messages.

    Returns:
        int16, shape (samples,), at least one.

    Raises:
        DamagedFileError: If the form, sample rate, sample width or number of channels is another
            one, if the file is compressed, or if its header gives another number of samples.

    References:
        NIST, "Speech Header Resources (SPHERE)", version 2.6.
    """
    if content.startswith(_MAGIC):
        samples = _read_sphere(content, path)
    elif content.startswith(b"RIFF"):
        samples = _read_riff(content, path)
    else:
        raise DamagedFileError(
            f"{path}: a recording must begin with NIST_1A (SPHERE) or RIFF. Received: "
            f"{content[:8]!r}{'' if content else ', an empty file'}; copy it from the corpus again."
        )
    if not len(samples):
        raise DamagedFileError(f"{path}: the recording holds no samples; copy it from the corpus again.")
    return samples


def _read_sphere(content: bytes, path: str) -> NDArray[np.int16]:
    fields, size = _sphere_header(content, path)
    coding = str(fields.get("sample_coding", "pcm"))
    if coding != "pcm":
        raise DamagedFileError(
            f"{path}: SPHERE samples must be plain pcm. Received: sample_coding={coding}; convert it with "
            "NIST's `w_decode -o pcm IN OUT` or LDC's `sph2pipe -f wav IN OUT`."
        )
    for name, value in {"channel_count": 1, **fields}.items():
        if name in _MUST_BE and value != _MUST_BE[name]:
            raise DamagedFileError(
                f"{path}: a recording of TIMIT has {name}={_MUST_BE[name]}. Received: {name}={value}."
            )
    order = str(fields["sample_byte_format"])
    if order not in _BYTE_ORDERS:
        raise DamagedFileError(
            f"{path}: sample_byte_format must be 01 (low byte first) or 10. Received: {order}; "
            "convert it to RIFF with `sph2pipe -f wav IN OUT`."
        )
    count, found = int(fields["sample_count"]), len(content) - size
    if found != 2 * count:
        raise DamagedFileError(
            f"{path}: its header says {count} samples, {2 * count} bytes. Received: {found} bytes of "
            "samples; copy it from the corpus again."
        )
    samples = np.frombuffer(content, _BYTE_ORDERS[order], count, size).astype(np.int16)
    # SPHERE's checksum is the sum of the samples modulo 2^16.
    checksum = int(samples.astype(np.int64).sum()) % 2**16
    if fields.get("sample_checksum", checksum) != checksum:
        raise DamagedFileError(
            f"{path}: its header says sample_checksum={fields['sample_checksum']}. Received: samples that "
            f"add up to {checksum}; copy it from the corpus again."
        )
    return samples


def _sphere_header(content: bytes, path: str) -> tuple[dict[str, str | int], int]:
    """Returns the fields (those of type `-i` as integers) and the size of the header in bytes."""
    broken = f"{path}: its SPHERE header is damaged"
    size_line = content[len(_MAGIC) : len(_MAGIC) + 8].strip()
    if not re.fullmatch(rb"\s*[0-9]{1,18}\s*", size_line) or not 16 <= int(size_line) <= len(content):
        raise DamagedFileError(
            f"{broken}: its second line must be its size, at most the file's {len(content)} bytes. "
            f"Received: {size_line!r}; copy the file from the corpus again."
        )
    size = int(size_line)
    lines = content[len(_MAGIC) + 8 : size].decode("latin-1").split("\n")
    fields: dict[str, str | int] = {}
    for line in lines:  # "name type value" each
        if line.strip() == "end_head":
            break
        name, _, typed = line.strip().partition(" ")
        kind, _, value = typed.partition(" ")
        if not name or name.startswith(";"):
            continue
        if kind == "-i" and not re.fullmatch(r"\s*-?[0-9]{1,18}\s*", value):
            raise DamagedFileError(
                f"{broken}: {name} must be an integer. Received: {value!r}; copy the file again."
            )
        fields[name] = int(value) if kind == "-i" else value
    else:
        raise DamagedFileError(f"{broken}: it does not end with end_head; copy the file again.")
    for name in ("sample_rate", "sample_n_bytes", "sample_count", "sample_byte_format"):
        kind_of = str if name == "sample_byte_format" else int
        if not isinstance(fields.get(name), kind_of):
            raise DamagedFileError(f"{broken}: it must have the field {name}; copy the file again.")
    return fields, size


def _read_riff(content: bytes, path: str) -> NDArray[np.int16]:
    try:
        with wave.open(io.BytesIO(content)) as file:
            found = (file.getframerate(), file.getsampwidth(), file.getnchannels())
            count, data = file.getnframes(), file.readframes(file.getnframes())
    except (EOFError, RuntimeError, wave.Error) as error:  # RuntimeError: a chunk's size is wrong
        raise DamagedFileError(
            f"{path}: its RIFF header is damaged, or not of plain PCM ({error or 'the file ends in it'}); "
            "copy or convert the file again."
        ) from error
    for name, value, expected in zip(_MUST_BE, found, _MUST_BE.values(), strict=True):
        if value != expected:
            raise DamagedFileError(
                f"{path}: a recording of TIMIT has {name}={expected}. Received: {name}={value}."
            )
    if len(data) != 2 * count:
        raise DamagedFileError(
            f"{path}: its header says {count} samples, {2 * count} bytes. Received: {len(data)} bytes of "
            "samples; copy it from the corpus again."
        )
    return np.frombuffer(data, "<i2").astype(np.int16)
