"""Image files whose pixels are complete although the file is damaged: what is missing is added, what is broken removed.

Only damage that cannot change a pixel is repaired: a JPEG without its end marker, and a PNG whose metadata is broken or
too large.
"""

import zlib
from collections.abc import Callable, Iterator
from hashlib import shake_128

JPEG_START, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
PNG_START = b"\x89PNG\r\n\x1a\n"
# As pixels, these bits would differ from each other and from no bits at all: a picture that they leave alone is whole,
# or lacks the end of its last block. They start differently, so that one code, "end of block", cannot begin all; each
# is longer than the ten blocks that are decoded together, and free of markers.
BITS = tuple(bytes([32 * n]) + shake_128(bytes([n])).digest(4096).replace(b"\xff", b"\xfe") for n in range(1, 7))
RESTART_INTERVAL, RESTARTS = b"\xff\xdd", range(0xD0, 0xD8)  # the marker in the header, those between the bits
PIXELS = (b"tRNS",)  # optional chunks that change pixels, and are kept as they are
ORIENTATION = b"eXIf"
NO_END_MARKER = "repaired: its end marker is missing"
NO_METADATA = "repaired: its metadata is broken or too large"

START_OF_SCAN, ALONE = 0xDA, (0x01, *range(0xD0, 0xD9))  # markers; those alone have no length
PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
FRAMES = tuple(code for code in range(0xC0, 0xD0) if code not in (0xC4, 0xC8, 0xCC))
COEFFICIENTS = 64


def without_metadata(content: bytes) -> bytes | None:
    """A PNG without the chunks that no pixel depends on, except a sound orientation; None if there are none."""
    if not content.startswith(PNG_START):
        return None
    kept, at, dropped = [PNG_START], len(PNG_START), False
    while at + 12 <= len(content):
        length, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        end = at + 12 + length
        if kind[:1].isupper() or kind in PIXELS or (kind == ORIENTATION and _is_sound(content[at + 4 : end])):
            kept.append(content[at:end])
        else:
            dropped = True
        at = end
        if kind == b"IEND":
            break
    return b"".join(kept) if dropped else None


def _is_sound(chunk: bytes) -> bool:
    """Whether the checksum at the end of a PNG chunk is that of its kind and body."""
    return zlib.crc32(chunk[:-4]) == int.from_bytes(chunk[-4:], "big")


def with_end_marker(content: bytes, pixels: Callable[[bytes], bytes]) -> bytes | None:
    """A JPEG with its missing end marker; None if pixels are missing too.

    Args:
        content: of the file, which could not be decoded.
        pixels: decodes a JPEG; its errors mean that it cannot be repaired.
    """
    if not content.startswith(JPEG_START) or content.endswith(JPEG_END) or not _has_all_scans(content):
        return None
    body = content.removesuffix(b"\xff")
    ended = body + JPEG_END
    tails = BITS
    if RESTART_INTERVAL in body:  # a decoder that expects a restart marker skips what precedes it
        restart = bytes((0xFF, _next_restart(body)))
        tails += tuple(restart + bits for bits in BITS[::2])
    expected = pixels(ended)
    return ended if all(pixels(body + tail + JPEG_END) == expected for tail in tails) else None


def _next_restart(content: bytes) -> int:
    """The code of the restart marker after the last one in a JPEG; in each scan they count from 0 to 7, and again."""
    scan = content.rfind(bytes((0xFF, START_OF_SCAN)))
    at, last = max((content.rfind(bytes((0xFF, code)), scan), code) for code in RESTARTS)
    return RESTARTS[(last - RESTARTS[0] + 1) % len(RESTARTS)] if at > scan else RESTARTS[0]


def _has_all_scans(content: bytes) -> bool:
    """Whether a JPEG's scans cover each coefficient of each component to the last bit."""
    components: set[int] = set()
    missing: dict[int, set[int]] = {}
    progressive = False
    for code, segment in _segments(content):
        if code in FRAMES and len(segment) > 5:
            progressive = code in PROGRESSIVE
            components = {*segment[6 : 6 + 3 * segment[5] : 3]}
            missing = {component: {*range(COEFFICIENTS)} for component in components}
        elif code == START_OF_SCAN and segment and len(segment) >= 4 + 2 * segment[0]:
            first, last, bits = segment[1 + 2 * segment[0] :][:3]
            done = {*range(first, last + 1)} if progressive else {*range(COEFFICIENTS)}
            for component in segment[1 : 1 + 2 * segment[0] : 2]:
                if component in missing and (not progressive or bits & 15 == 0):
                    missing[component] -= done
    return bool(components) and not any(missing.values())


def _segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The code and body of each marker segment of a JPEG; entropy-coded data is skipped."""
    at = 2
    while (at := content.find(b"\xff", at)) >= 0 and at + 4 <= len(content):
        code = content[at + 1]
        if code in (0x00, 0xFF) or code in ALONE:
            at += 1 if code == 0xFF else 2
            continue
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        yield code, content[at + 4 : at + 2 + length]
        at += 2 + max(length, 2)
