"""Writes image files of every format, mode and oddity, and what Pillow 10.4.0 makes of each.

    pip install pillow==10.4.0 numpy && python make.py FOLDER [--odd]

`FOLDER/expected.json` maps each file name to `{"size": [width, height], "sha256": HASH}` of the RGB bytes that the
loader of the LAPS authors gets (`Image.open(path).convert("RGB")` with truncated files allowed), or to
`{"refused": ERROR}`. `"blank": true` marks images in which Pillow decoded no pixel. With `--odd`, only the small files
that the repository contains are written.
"""
import hashlib
import io
import json
import pathlib
import struct
import sys
import warnings
import zlib

import numpy
import PIL
from PIL import Image, ImageDraw, ImageFile

assert PIL.__version__ == "10.4.0"
ImageFile.LOAD_TRUNCATED_IMAGES = True
warnings.simplefilter("ignore")
random = numpy.random.default_rng(11)
files = {}
odd_names = set()


def add(name, data, odd=False):
    assert name not in files, name
    files[name] = bytes(data)
    if odd:
        odd_names.add(name)


def cuts(name, data, shares, odd=False):
    """The file cut at shares of its length in percent."""
    stem, extension = name.rsplit(".", 1)
    for share in shares:
        add(f"{stem}_cut{share:02}.{extension}", data[: max(1, len(data) * share // 100)], odd)


def saved(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


# Drawn images


def drawn(width, height, noise=4):
    """Shapes on a gradient with some noise, so that neither chroma upsampling nor rounding can hide."""
    y, x = numpy.mgrid[0:height, 0:width]
    planes = [127 + 90 * numpy.sin(x / (5 + 2 * k) + y / (9 - 2 * k) + k) for k in range(3)]
    pixels = numpy.stack(planes, -1) + random.normal(0, noise, (height, width, 3))
    image = Image.fromarray(numpy.clip(pixels, 0, 255).astype(numpy.uint8))
    draw = ImageDraw.Draw(image)
    draw.ellipse((width // 5, height // 4, width // 2, height - 3), fill=(220, 30, 40), outline=(255, 255, 255))
    draw.rectangle((width // 2, 2, width - 4, height // 3), fill=(10, 60, 200))
    draw.line((0, height, width, 0), fill=(0, 255, 0))
    return image


def with_alpha(image):
    width, height = image.size
    y, x = numpy.mgrid[0:height, 0:width]
    alpha = numpy.clip(300 * numpy.sin(x / 7) * numpy.cos(y / 5) + 100, 0, 255).astype(numpy.uint8)
    image = image.convert("RGBA")
    image.putalpha(Image.fromarray(alpha))
    return image


photo = drawn(45, 37, noise=2)
alpha = with_alpha(photo)
large = drawn(331, 227, noise=25)
inks = Image.merge("CMYK", [*photo.split(), drawn(45, 37).convert("L")])


# JPEG


def segment(data, marker):
    """Offset of the first segment with this marker."""
    return data.index(bytes([0xFF, marker]))


for quality in (10, 50, 75, 90, 95, 100):
    add(f"q{quality}.jpg", saved(photo, "JPEG", quality=quality))
for name, subsampling in (("420", 2), ("422", 1), ("444", 0)):
    for progressive in (False, True):
        options = {"subsampling": subsampling, "progressive": progressive, "quality": 80}
        suffix = "_progressive" if progressive else ""
        add(f"s{name}{suffix}.jpg", saved(photo, "JPEG", **options))
        add(f"s{name}{suffix}_large.jpg", saved(large, "JPEG", **options))
    for width, height in ((1, 1), (2, 3), (7, 9), (8, 8), (16, 17), (33, 1)):
        add(f"s{name}_{width}x{height}.jpg", saved(drawn(40, 20).resize((width, height)), "JPEG", subsampling=subsampling))
add("grey.jpg", saved(photo.convert("L"), "JPEG"))
add("grey_progressive.jpg", saved(photo.convert("L"), "JPEG", progressive=True))
add("keep_rgb.jpg", saved(photo, "JPEG", keep_rgb=True))
add("optimised.jpg", saved(photo, "JPEG", optimize=True))
add("cmyk.jpg", saved(inks, "JPEG"), odd=True)
add("cmyk_progressive.jpg", saved(inks, "JPEG", progressive=True))
cmyk = saved(inks, "JPEG", quality=92)
at = segment(cmyk, 0xEE)
add("ycck.jpg", cmyk[: at + 15] + b"\x02" + cmyk[at + 16 :], odd=True)
add("cmyk_without_adobe.jpg", cmyk[:at] + cmyk[at + 16 :])
add("restart.jpg", saved(photo, "JPEG", restart_marker_blocks=2))
add("restart_rows.jpg", saved(large, "JPEG", restart_marker_rows=1))
add("restart_progressive.jpg", saved(photo, "JPEG", restart_marker_blocks=2, progressive=True))
for orientation in (1, 3, 6, 8):
    exif = Image.Exif()
    exif[0x0112] = orientation
    add(f"orientation{orientation}.jpg", saved(photo, "JPEG", exif=exif), odd=orientation == 6)
add("comment.jpg", saved(photo, "JPEG", comment="a drawing"))
add("icc.jpg", saved(photo, "JPEG", icc_profile=bytes(range(256)) * 300))
plain = saved(photo, "JPEG")
add("tail.jpg", plain + bytes(range(256)), odd=True)
add("two_in_one.jpg", plain + saved(drawn(20, 20), "JPEG"))
add("without_end.jpg", plain[:-2], odd=True)
add("junk_before_a_segment.jpg", plain[:20] + b"\0\1\2" + plain[20:])
add("padded_marker.jpg", plain[:20] + b"\xff\xff" + plain[20:])
# The sampling factors of the luma plane, with as many blocks in an MCU, so that the data stay valid.
for old, new, source in ((0x21, 0x12, 1), (0x22, 0x41, 2), (0x22, 0x14, 2)):
    data = bytearray(saved(drawn(48, 48), "JPEG", subsampling=source))
    at = segment(data, 0xC0)
    assert data[at + 11] == old
    data[at + 11] = new
    add(f"sampling{new:02x}.jpg", data, odd=True)
for name, options in (("baseline", {}), ("progressive", {"progressive": True}), ("restart", {"restart_marker_blocks": 3})):
    for kind, image in (("colour", photo), ("grey", photo.convert("L")), ("cmyk", inks)):
        if kind == "colour" or name != "restart":
            data = saved(image, "JPEG", quality=85, **options)
            shares = (10, 30, 50, 60, 70, 80, 90, 97) if kind == "colour" else (50, 75, 95)
            cuts(f"{name}_{kind}.jpg", data, shares, odd=kind == "colour" and name == "baseline")
            start = segment(data, 0xDA) + 2
            start += struct.unpack(">H", data[start : start + 2])[0]
            if kind == "colour":
                add(f"{name}_cut_at_data.jpg", data[:start])
                add(f"{name}_cut_after_a_byte.jpg", data[: start + 1])
                add(f"{name}_cut_in_marker.jpg", data[:-1])
                broken = bytearray(data)
                middle = (start + len(data)) // 2
                broken[middle : middle + 12] = bytes(12)
                add(f"{name}_overwritten.jpg", broken)
cuts("large_baseline.jpg", saved(large, "JPEG", quality=85), (40, 80))
cuts("large_progressive.jpg", saved(large, "JPEG", quality=85, progressive=True), range(5, 100, 5))

# PNG

ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def chunk(kind, body, crc=None):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) if crc is None else crc)


def packed(samples, depth):
    """A row of samples as bytes."""
    if depth == 16:
        return samples.astype(">u2").tobytes()
    if depth == 8:
        return samples.astype(numpy.uint8).tobytes()
    bits = (samples[:, None] >> numpy.arange(depth - 1, -1, -1)) & 1
    return numpy.packbits(bits.astype(numpy.uint8)).tobytes()


def filtered(rows, step, choose):
    """The rows with their filter bytes."""
    result, above = [], None
    for number, row in enumerate(rows):
        row = numpy.frombuffer(row, numpy.uint8).astype(int)
        up = numpy.zeros_like(row) if above is None else above
        left = numpy.concatenate([numpy.zeros(step, int), row])[: len(row)]
        corner = numpy.concatenate([numpy.zeros(step, int), up])[: len(row)]
        guess = left + up - corner
        distances = numpy.stack([abs(guess - left), abs(guess - up), abs(guess - corner)])
        paeth = numpy.choose(numpy.argmin(distances, 0), [left, up, corner])
        kind = choose(number)
        predicted = [0, left, up, (left + up) // 2, paeth][min(kind, 4)]
        result.append(bytes([kind]) + ((row - predicted) % 256).astype(numpy.uint8).tobytes())
        above = row
    return b"".join(result)


def png_data(pixels, depth, interlaced=False, choose=lambda row: row % 5):
    height, width, channels = pixels.shape
    step = max(1, channels * depth // 8)
    images = [pixels[y::dy, x::dx] for x, y, dx, dy in ADAM7] if interlaced else [pixels]
    images = [image for image in images if image.size]
    return b"".join(filtered([packed(row.reshape(-1), depth) for row in image], step, choose) for image in images)


def png(pixels, depth, color_type, interlaced=False, before=b"", after=b"", blocks=1, level=6, **options):
    height, width = pixels.shape[:2]
    data = zlib.compress(png_data(pixels, depth, interlaced, **options), level)
    size = -(-len(data) // blocks)
    idat = b"".join(chunk(b"IDAT", data[at : at + size]) for at in range(0, len(data), size))
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + idat + after + chunk(b"IEND", b"")


def palette_bytes(count):
    return random.integers(0, 256, 3 * count).astype(numpy.uint8).tobytes()


CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
rgba = numpy.asarray(alpha).astype(int)
deep = rgba * 257 + random.integers(-100, 100, rgba.shape)
deep = numpy.clip(deep, 0, 65535)
for color_type, depths in ((0, (1, 2, 4, 8, 16)), (2, (8, 16)), (3, (1, 2, 4, 8)), (4, (8, 16)), (6, (8, 16))):
    for depth in depths:
        source = {1: deep[..., :1], 2: deep[..., [0, 3]], 3: deep[..., :3], 4: deep}[CHANNELS[color_type]]
        pixels = source >> (16 - depth)
        before = chunk(b"PLTE", palette_bytes(1 << depth)) if color_type == 3 else b""
        for interlaced in (False, True):
            name = f"type{color_type}_depth{depth}{'_interlaced' if interlaced else ''}"
            data = png(pixels, depth, color_type, interlaced, before)
            add(f"{name}.png", data, odd=interlaced and depth < 8)
            cuts(f"{name}.png", data, (50, 75, 95), odd=depth in (1, 8) and color_type == 3)
        for width, height in ((1, 1), (2, 2), (3, 5), (5, 3)):
            data = png(pixels[:height, :width], depth, color_type, True, before)
            add(f"type{color_type}_depth{depth}_{width}x{height}.png", data, odd=depth == 16 and width == 5)
small = rgba[..., :3]
grey = rgba[..., :1]
# 16-bit grey that does not exceed 255, as some depth maps.
add("grey16_dark.png", png(grey, 16, 0), odd=True)
for name, mode in (("1", "1"), ("L", "L"), ("LA", "LA"), ("RGB", "RGB"), ("RGBA", "RGBA")):
    add(f"saved_{name}.png", saved(alpha.convert(mode), "PNG"))
add("saved_P.png", saved(photo.quantize(50), "PNG"))
add("saved_I16.png", saved(Image.fromarray(deep[..., 0].astype(numpy.uint16)), "PNG"))
add("saved_I.png", saved(Image.fromarray(deep[..., 1].astype(numpy.int32)), "PNG"))
add("saved_P_transparent.png", saved(photo.quantize(50), "PNG", transparency=3))
add("saved_L_transparent.png", saved(photo.convert("L"), "PNG", transparency=90))
add("saved_RGB_transparent.png", saved(photo, "PNG", transparency=(220, 30, 40)))
for level in (0, 1, 9):
    add(f"level{level}.png", png(small, 8, 2, level=level))
for filter_type in range(5):
    add(f"filter{filter_type}.png", png(small, 8, 2, choose=lambda row: filter_type))
add("filter5.png", png(small, 8, 2, choose=lambda row: 5 if row == 20 else 1), odd=True)
add("many_blocks.png", png(small, 8, 2, blocks=40))
add("large.png", saved(large, "PNG"))
cuts("large.png", saved(large, "PNG"), (1, 20, 40, 60, 80, 99))
cuts("large_interlaced.png", png(numpy.asarray(large).astype(int), 8, 2, True), (1, 20, 40, 60, 80, 99))
# Few bytes for many rows: what zlib has not given out at the cut is lost.
flat = numpy.zeros((200, 60, 3), int) + [7, 70, 170]
flat[:, 20:40] = [200, 100, 0]
cuts("flat.png", png(flat, 8, 2, choose=lambda row: 0, level=9), (60, 70, 80, 85, 90, 95), odd=True)
for kind, body in (
    (b"gAMA", struct.pack(">I", 45455)),
    (b"sRGB", b"\0"),
    (b"cHRM", struct.pack(">8I", *range(30000, 38000, 1000))),
    (b"iCCP", b"icc\0\0" + zlib.compress(bytes(500))),
    (b"bKGD", struct.pack(">HHH", 10, 20, 30)),
    (b"pHYs", struct.pack(">IIB", 3000, 3000, 1)),
    (b"tEXt", b"Comment\0drawn"),
    (b"zTXt", b"Comment\0\0" + zlib.compress(b"drawn")),
    (b"iTXt", b"Comment\0\0\0en\0Comment\0drawn"),
    (b"eXIf", saved(photo, "PNG", exif=exif).split(b"eXIf")[1][:26]),
    (b"sBIT", b"\5\6\5"),
    (b"tIME", b"\7\xe8\1\1\1\1\1"),
    (b"prVt", b"private"),
    (b"vpAg", bytes(9)),
):
    name = kind.decode()
    add(f"with_{name}.png", png(small, 8, 2, before=chunk(kind, body)))
    add(f"with_{name}_wrong_crc.png", png(small, 8, 2, before=chunk(kind, body, crc=1)), odd=name == "gAMA")
    add(f"with_{name}_after.png", png(small, 8, 2, after=chunk(kind, body)))
    add(f"with_{name}_after_cut.png", png(small, 8, 2, after=chunk(kind, body))[: -12 - 4 - len(body) // 2 - 1])
    add(f"with_{name}_short.png", png(small, 8, 2, before=chunk(kind, body[:1])))
    add(f"with_{name}_empty.png", png(small, 8, 2, before=chunk(kind, b"")))
add("with_iCCP_method.png", png(small, 8, 2, before=chunk(b"iCCP", b"icc\0\1" + zlib.compress(bytes(500)))))
add("critical_unknown.png", png(small, 8, 2, before=chunk(b"ABCD", b"abc")))
add("name_not_ascii.png", png(small, 8, 2, before=chunk(b"\xe1BCD", b"abc")))
add("name_not_ascii_after.png", png(small, 8, 2, after=chunk(b"\xe1BCD", b"abc")))
add("critical_unknown_wrong_crc.png", png(small, 8, 2, before=chunk(b"ABCD", b"abc", crc=3)))
whole = png(small, 8, 2)
end = whole.index(b"IEND") - 4
idat = whole.index(b"IDAT") - 4
add("without_iend.png", whole[:end], odd=True)
add("without_crc_of_idat.png", whole[: end - 4])
add("half_of_iend.png", whole[: end + 6], odd=True)
add("iend_wrong_crc.png", whole[:-1] + b"\0")
add("tail.png", whole + b"tail" * 100)
add("idat_wrong_crc.png", whole[: end - 4] + bytes(4) + whole[end:], odd=True)
add("ihdr_wrong_crc.png", whole[:29] + bytes(4) + whole[33:])
add("plte_wrong_crc.png", png(grey // 16, 4, 3, before=chunk(b"PLTE", palette_bytes(16), crc=5)))
compressed = bytearray(zlib.compress(png_data(small, 8)))
header = whole[:idat]
adler = bytearray(compressed)
adler[-1] ^= 1
add("wrong_adler.png", header + chunk(b"IDAT", adler) + whole[end:])
add("without_adler.png", header + chunk(b"IDAT", compressed[:-4]) + whole[end:])
for share in (10, 30, 50, 70, 90):
    broken = bytearray(compressed)
    at = len(broken) * share // 100
    broken[at : at + 6] = b"\xff" * 6
    add(f"broken_deflate{share}.png", header + chunk(b"IDAT", broken) + whole[end:], odd=share == 50)
    cut = compressed[: len(compressed) * share // 100]
    add(f"deflate_ends{share}.png", header + chunk(b"IDAT", cut) + whole[end:], odd=share == 50)
short = zlib.compress(png_data(small[:20], 8))
add("rows_missing.png", header + chunk(b"IDAT", short) + whole[end:], odd=True)
add("too_many_rows.png", header + chunk(b"IDAT", zlib.compress(png_data(numpy.tile(small, (2, 1, 1)), 8))) + whole[end:])
half = len(compressed) // 2
text = chunk(b"tEXt", b"a\0b")
parts = chunk(b"IDAT", compressed[:half]), chunk(b"IDAT", compressed[half:])
add("idat_apart.png", header + parts[0] + text + parts[1] + whole[end:])
add("idat_empty_between.png", header + parts[0] + chunk(b"IDAT", b"") + parts[1] + whole[end:])
add("idat_length_too_long.png", header + struct.pack(">I", 99999) + whole[idat + 4 :])
add("idat_first_wrong_crc.png", header + chunk(b"IDAT", compressed[:half], crc=7) + parts[1] + whole[end:])
add("no_idat.png", header + whole[end:])
add("idat_empty.png", header + chunk(b"IDAT", b"") + whole[end:])
for depth, count in ((8, 40), (8, 300), (4, 5)):
    indices = grey >> (8 - depth)
    add(f"palette{depth}_of_{count}.png", png(indices, depth, 3, before=chunk(b"PLTE", palette_bytes(count))), odd=count == 5)
add("palette_of_fraction.png", png(grey >> 4, 4, 3, before=chunk(b"PLTE", palette_bytes(16)[:-1])))
add("palette_missing.png", png(grey >> 4, 4, 3))
add("palette_in_rgb.png", png(small, 8, 2, before=chunk(b"PLTE", palette_bytes(16))))
add("palette_in_grey.png", png(grey, 8, 0, before=chunk(b"PLTE", palette_bytes(256))))
add("palette_twice.png", png(grey >> 4, 4, 3, before=chunk(b"PLTE", palette_bytes(16)) + chunk(b"PLTE", palette_bytes(16))))
add("palette_after.png", png(grey >> 4, 4, 3, after=chunk(b"PLTE", palette_bytes(16))))
plte = chunk(b"PLTE", palette_bytes(256))
add("trns_bytes.png", png(grey, 8, 3, before=plte + chunk(b"tRNS", bytes(range(0, 256, 4)))))
add("trns_one.png", png(grey, 8, 3, before=plte + chunk(b"tRNS", b"\xff\xff\0")))
add("trns_before_palette.png", png(grey, 8, 3, before=chunk(b"tRNS", b"\xff\0") + plte))
add("trns_without_palette.png", png(grey, 8, 3, before=chunk(b"tRNS", b"\xff\0")))
add("trns_grey.png", png(grey, 8, 0, before=chunk(b"tRNS", b"\0\x50")))
add("trns_grey_large.png", png(grey, 8, 0, before=chunk(b"tRNS", b"\x50\x50")))
add("trns_grey1.png", png(grey >> 7, 1, 0, before=chunk(b"tRNS", b"\0\x01")))
add("trns_grey16.png", png(deep[..., :1], 16, 0, before=chunk(b"tRNS", b"\x50\x50")))
add("trns_rgb.png", png(small, 8, 2, before=chunk(b"tRNS", struct.pack(">HHH", 220, 30, 40))))
add("trns_rgb16.png", png(deep[..., :3], 16, 2, before=chunk(b"tRNS", struct.pack(">HHH", 2200, 3000, 40))))
add("trns_rgb_short.png", png(small, 8, 2, before=chunk(b"tRNS", b"\0\1")))
add("trns_in_rgba.png", png(rgba, 8, 6, before=chunk(b"tRNS", b"\0\1")))
for depth, color_type in ((2, 2), (16, 3), (4, 6), (3, 0), (8, 1)):
    add(f"bad_type{color_type}_depth{depth}.png", whole[:24] + bytes([depth, color_type]) + whole[26:29] +
        struct.pack(">I", zlib.crc32(whole[12:24] + bytes([depth, color_type]) + whole[26:29])) + whole[33:])
for at, value in ((26, 1), (27, 1), (28, 2)):
    fields = bytearray(whole[12:29])
    fields[at - 12] = value
    add(f"header_byte{at}.png", whole[:12] + fields + struct.pack(">I", zlib.crc32(fields)) + whole[33:])
for width, height in ((0, 5), (5, 0)):
    fields = whole[12:16] + struct.pack(">II", width, height) + whole[24:29]
    add(f"size_{width}x{height}.png", whole[:12] + fields + struct.pack(">I", zlib.crc32(fields)) + whole[33:])
frames = [drawn(30, 20), drawn(30, 20), drawn(30, 20)]
animated = saved(frames[0], "PNG", save_all=True, append_images=frames[1:])
add("animated.png", animated, odd=True)
cuts("animated.png", animated, (20, 50, 90))
add("animated_alpha.png", saved(with_alpha(frames[0]), "PNG", save_all=True, append_images=[with_alpha(frames[1])], blend=1, disposal=2))
add("animated_default.png", saved(frames[0], "PNG", save_all=True, append_images=frames[1:], default_image=True))
for at in (0, 3, 8, 20, 33, 36, 41, 45):
    add(f"cut_to_{at}_bytes.png", whole[:at] if at else b"\x89")

# GIF


def lzw(indices, bits, end=True, clear_at=4096):
    """GIF data blocks."""
    clear, accumulator, count, output = 1 << bits, 0, 0, bytearray()

    def put(code, width):
        nonlocal accumulator, count
        accumulator |= code << count
        count += width
        while count >= 8:
            output.append(accumulator & 255)
            accumulator >>= 8
            count -= 8

    table, width = {bytes([i]): i for i in range(clear)}, bits + 1
    following = clear + 2
    put(clear, width)
    prefix = b""
    for index in bytes(indices):
        string = prefix + bytes([index])
        if string in table:
            prefix = string
            continue
        put(table[prefix], width)
        if following < 4096:
            table[string] = following
            if following == 1 << width and width < 12:
                width += 1
            following += 1
        if following >= clear_at:
            put(clear, width)
            table, width, following = {bytes([i]): i for i in range(clear)}, bits + 1, clear + 2
        prefix = bytes([index])
    if prefix:
        put(table[prefix], width)
    if end:
        # The decoder has one entry more than the encoder here.
        put(clear + 1, width + (following == 1 << width and width < 12))
    if count:
        output.append(accumulator)
    blocks = [output[at : at + 255] for at in range(0, len(output), 255)]
    return b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


def frame(indices, at=(0, 0), bits=8, interlaced=False, palette=None, transparent=None, disposal=0, control=True, size=None, **options):
    height, width = indices.shape
    data = b""
    if control and (transparent is not None or disposal):
        data += b"!\xf9\4" + bytes([disposal << 2 | (transparent is not None)]) + b"\5\0" + bytes([transparent or 0, 0])
    flags = 0x40 * interlaced
    if palette is not None:
        flags |= 0x80 | (len(palette) // 3).bit_length() - 2
    order = range(height)
    if interlaced:
        order = [*range(0, height, 8), *range(4, height, 8), *range(2, height, 4), *range(1, height, 2)]
    data += b"," + struct.pack("<HHHHB", *at, *(size or (width, height)), flags) + (palette or b"")
    return data + bytes([bits]) + lzw(indices[list(order)].tobytes(), bits, **options)


def gif(*parts, screen, palette=None, background=0, version=b"GIF89a", trailer=b";"):
    flags = 0x70
    if palette is not None:
        flags |= 0x80 | (len(palette) // 3).bit_length() - 2
    return version + struct.pack("<HHBBB", *screen, flags, background, 0) + (palette or b"") + b"".join(parts) + trailer


table = palette_bytes(256)
small_table = palette_bytes(16)
indices = numpy.asarray(photo.convert("L"))
low = indices >> 4
screen = (45, 37)
identity = bytes(sum(([i] * 3 for i in range(256)), []))
colour_first = palette_bytes(1) + identity[3:]
for version in (b"GIF87a", b"GIF89a"):
    add(f"{version.decode()}.gif", gif(frame(indices), screen=screen, palette=table, version=version))
for bits, count in ((2, 4), (3, 8), (4, 16), (5, 32), (6, 64), (7, 128), (8, 256)):
    data = gif(frame(indices >> (8 - bits), bits=bits), screen=screen, palette=palette_bytes(count))
    add(f"bits{bits}.gif", data)
add("bits1.gif", gif(frame(indices >> 7, bits=2), screen=screen, palette=palette_bytes(2)))
add("bits8_of_16.gif", gif(frame(low, bits=8), screen=screen, palette=small_table))
add("index_beyond_palette.gif", gif(frame(indices, bits=8), screen=screen, palette=small_table), odd=True)
for interlaced in (False, True):
    name = "interlaced" if interlaced else "rows"
    data = gif(frame(indices, interlaced=interlaced), screen=screen, palette=table)
    add(f"{name}.gif", data, odd=interlaced)
    cuts(f"{name}.gif", data, (5, 40, 55, 70, 85, 99), odd=interlaced)
    for width, height in ((1, 1), (3, 2), (2, 5), (9, 9)):
        part = indices[:height, :width]
        add(f"{name}_{width}x{height}.gif", gif(frame(part, interlaced=interlaced), screen=(width, height), palette=table))
for background in (0, 7):
    for transparent in (None, 3):
        for at in ((0, 0), (5, 9)):
            part = frame(indices[:20, :25], at, transparent=transparent)
            name = f"smaller_background{background}_transparent{transparent}_at{at[0]}"
            add(f"{name}.gif", gif(part, screen=screen, palette=table, background=background), odd=background == 7)
            part = frame(indices[:20, :25], at, transparent=transparent, palette=palette_bytes(256))
            add(f"{name}_local.gif", gif(part, screen=screen, palette=table, background=background))
            cuts(f"{name}.gif", gif(part, screen=screen, palette=table, background=background), (95,))
add("smaller_local_only.gif", gif(frame(indices[:9, :9], (4, 4), palette=table), screen=screen), odd=True)
add("larger_than_screen.gif", gif(frame(indices), screen=(20, 10), palette=table), odd=True)
add("beyond_screen.gif", gif(frame(indices, (10, 12)), screen=screen, palette=table))
add("zero_screen.gif", gif(frame(indices), screen=(0, 0), palette=table))
add("zero_frame.gif", gif(frame(indices, size=(0, 0)), screen=screen, palette=table), odd=True)
add("zero_width_frame.gif", gif(frame(indices, size=(0, 5)), screen=screen, palette=table))
add("zero_width_frame_at3.gif", gif(frame(indices, (3, 0), size=(0, 5)), screen=screen, palette=table))
add("zero_height_frame.gif", gif(frame(indices, size=(5, 0)), screen=screen, palette=table))
add("local_palette.gif", gif(frame(indices, palette=table), screen=screen))
add("local_and_global.gif", gif(frame(indices, palette=palette_bytes(256)), screen=screen, palette=table))
add("no_palette.gif", gif(frame(indices), screen=screen), odd=True)
add("grey_palette.gif", gif(frame(indices), screen=screen, palette=identity))
add("grey_palette_transparent.gif", gif(frame(indices, transparent=9), screen=screen, palette=identity))
add("grey_palette_smaller.gif", gif(frame(indices[:9, :9], (1, 1), transparent=9), screen=screen, palette=identity))
add("grey16_palette.gif", gif(frame(low, bits=4), screen=screen, palette=identity[:48]))
add("grey16_palette_beyond.gif", gif(frame(indices, bits=8), screen=screen, palette=identity[:48]))
add("local_grey_global_colour.gif", gif(frame(indices, palette=identity), screen=screen, palette=table), odd=True)
add("local_colour_global_grey.gif", gif(frame(indices, palette=table), screen=screen, palette=identity))
add("almost_grey_palette.gif", gif(frame(indices), screen=screen, palette=colour_first))
for disposal in (1, 2, 3):
    parts = [frame(indices, disposal=disposal), frame(indices[:9, :9], (3, 3), disposal=disposal, transparent=4)]
    add(f"animated_disposal{disposal}.gif", gif(*parts, screen=screen, palette=table))
    parts[0] = frame(indices[:20, :20], (2, 5), disposal=disposal, transparent=4)
    add(f"animated_disposal{disposal}_smaller.gif", gif(*parts, screen=screen, palette=table), odd=disposal == 2)
saved_frames = [image.quantize(20) for image in frames]
add("animated.gif", saved(saved_frames[0], "GIF", save_all=True, append_images=saved_frames[1:], loop=0))
add("animated_rgb.gif", saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50))
cuts("animated.gif", files["animated.gif"], (15, 30, 60))
for name, mode in (("1", "1"), ("L", "L"), ("P", "P"), ("RGB", "RGB"), ("RGBA", "RGBA"), ("LA", "LA")):
    add(f"saved_{name}.gif", saved(alpha.convert(mode), "GIF"))
add("saved_transparent.gif", saved(photo.quantize(60), "GIF", transparency=5))
add("saved_large.gif", saved(large, "GIF"))
cuts("saved_large.gif", files["saved_large.gif"], (10, 50, 90))
comment = b"!\xfe\7a frame\0"
application = b"!\xff\x0bNETSCAPE2.0\3\1\0\0\0"
add("extensions.gif", gif(comment, application, b"!\1\x0c" + bytes(12) + b"\2ab\0", frame(indices, transparent=2), screen=screen, palette=table))
add("comment_after.gif", gif(frame(indices), comment, screen=screen, palette=table))
add("without_trailer.gif", gif(frame(indices), screen=screen, palette=table, trailer=b""))
add("without_end_code.gif", gif(frame(indices, end=False), screen=screen, palette=table), odd=True)
add("without_terminator.gif", gif(frame(indices), screen=screen, palette=table)[:-2])
add("tail.gif", gif(frame(indices), screen=screen, palette=table) + b"tail" * 50)
add("junk_between.gif", gif(b"\1\2\3", frame(indices), screen=screen, palette=table))
add("rows_missing.gif", gif(frame(indices[:20], size=screen), screen=screen, palette=table), odd=True)
add("rows_missing_without_end.gif", gif(frame(indices[:20], size=screen, end=False), screen=screen, palette=table))
add("rows_missing_then_frame.gif", gif(frame(indices[:20], size=screen, end=False), frame(indices), screen=screen, palette=table))
add("rows_missing_interlaced.gif", gif(frame(indices[:20], size=screen, interlaced=True), screen=screen, palette=table))
add("too_many_rows.gif", gif(frame(indices, size=(45, 20)), screen=(45, 20), palette=table))
add("clear_often.gif", gif(frame(indices, clear_at=300), screen=screen, palette=table))
add("clear_late.gif", gif(frame(numpy.asarray(large.convert("L")), clear_at=9999), screen=(331, 227), palette=table), odd=False)
broken = bytearray(gif(frame(indices), screen=screen, palette=table))
broken[-400:-390] = bytes([255] * 10)
add("broken_codes.gif", broken, odd=True)
broken = bytearray(gif(frame(indices), screen=screen, palette=table))
at = broken.index(b",", 781)
broken[at + 12] = 1
add("broken_first_code.gif", broken)
for bits in (0, 9, 12, 13, 255):
    data = bytearray(gif(frame(indices), screen=screen, palette=table))
    data[at + 10] = bits
    add(f"code_size{bits}.gif", data)
add("only_header.gif", gif(screen=screen, palette=table))
add("only_control.gif", gif(b"!\xf9\4\1\5\0\0\0", screen=screen, palette=table))
add("control_short.gif", gif(b"!\xf9\1\1\0", frame(indices), screen=screen, palette=table))
for length in (3, 6, 12, 13, 100, 784, 790):
    add(f"cut_to_{length}_bytes.gif", gif(frame(indices), screen=screen, palette=table)[:length])

# BMP


def bmp(rows, width, height, bits, compression=0, header=40, palette=b"", masks=b"", colours=0, top_down=False, offset=None, size_image=None):
    """`rows` holds the pixel data."""
    if header == 12:
        info = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        signed = -height if top_down else height
        length = len(rows) if size_image is None else size_image
        info = struct.pack("<IiiHHIIiiII", header, width, signed, 1, bits, compression, length, 2835, 2835, colours, 0)
        if header > 40:
            info += masks + bytes(header - 40 - len(masks))
            masks = b""
        info += masks
    info += palette
    if offset is None:
        offset = 14 + len(info)
    return b"BM" + struct.pack("<IHHI", 14 + len(info) + len(rows), 0, 0, offset) + info + rows


def bmp_rows(samples, bits, top_down=False):
    """Rows of samples `(height, width)`, each padded to four bytes."""
    result = []
    for row in samples if top_down else samples[::-1]:
        data = row.astype({8: "<u1", 16: "<u2", 32: "<u4"}[bits]).tobytes() if bits >= 8 and bits != 24 else packed(row, bits)
        result.append(data + bytes(-len(data) % 4))
    return b"".join(result)


def bgr_rows(pixels, top_down=False):
    rows = [row[:, ::-1].astype(numpy.uint8).tobytes() for row in (pixels if top_down else pixels[::-1])]
    return b"".join(row + bytes(-len(row) % 4) for row in rows)


def masked(bits, masks):
    """Pixels by bit masks for red, green, blue and alpha."""
    values = numpy.zeros(rgba.shape[:2], numpy.uint64)
    for channel, mask in enumerate(masks):
        if mask:
            shift = (mask & -mask).bit_length() - 1
            largest = mask >> shift
            values |= (rgba[..., channel] * largest // 255).astype(numpy.uint64) << numpy.uint64(shift)
    return bmp_rows(values.astype(numpy.uint32) if bits == 32 else values.astype(numpy.uint16), bits)


def quads(count, grey=False):
    colours = random.integers(0, 256, (count, 4)).astype(numpy.uint8)
    if grey:
        colours[:, :3] = numpy.arange(count)[:, None]
    return colours.tobytes()


w, h = 45, 37
low_indices = {1: indices >> 7, 4: indices >> 4, 8: indices}
for bits, samples in low_indices.items():
    for top_down in (False, True):
        data = bmp(bmp_rows(samples, bits, top_down), w, h, bits, palette=quads(1 << bits), top_down=top_down)
        add(f"bits{bits}{'_top_down' if top_down else ''}.bmp", data, odd=top_down)
        cuts(f"bits{bits}{'_top_down' if top_down else ''}.bmp", data, (30, 60, 99), odd=bits == 8 and not top_down)
    core = quads(1 << bits)
    core = b"".join(core[4 * i : 4 * i + 3] for i in range(1 << bits))
    add(f"bits{bits}_os2.bmp", bmp(bmp_rows(samples, bits), w, h, bits, header=12, palette=core), odd=True)
    for header in (52, 56, 64, 108, 124):
        add(f"bits{bits}_header{header}.bmp", bmp(bmp_rows(samples, bits), w, h, bits, header=header, palette=quads(1 << bits)))
    few = max(2, (1 << bits) - 5)
    add(f"bits{bits}_colours{few}.bmp", bmp(bmp_rows(samples % few, bits), w, h, bits, palette=quads(few), colours=few))
    add(f"bits{bits}_beyond_palette.bmp", bmp(bmp_rows(samples, bits), w, h, bits, palette=quads(few), colours=few))
add("grey8.bmp", bmp(bmp_rows(indices, 8), w, h, 8, palette=quads(256, grey=True)))
cuts("grey8.bmp", files["grey8.bmp"], (70,))
add("grey8_colours200.bmp", bmp(bmp_rows(indices, 8), w, h, 8, palette=quads(200, grey=True), colours=200), odd=True)
add("grey4.bmp", bmp(bmp_rows(indices >> 4, 4), w, h, 4, palette=quads(16, grey=True)), odd=True)
add("black_white.bmp", bmp(bmp_rows(indices >> 7, 1), w, h, 1, palette=b"\0\0\0\0\xff\xff\xff\0"))
add("white_black.bmp", bmp(bmp_rows(indices >> 7, 1), w, h, 1, palette=b"\xff\xff\xff\0\0\0\0\0"))
add("black_white8.bmp", bmp(bmp_rows(indices >> 7, 8), w, h, 8, palette=b"\0\0\0\0\xff\xff\xff\0", colours=2), odd=True)
add("black_white4.bmp", bmp(bmp_rows(indices >> 7, 4), w, h, 4, palette=b"\0\0\0\0\xff\xff\xff\0", colours=2), odd=True)
add("colours300.bmp", bmp(bmp_rows(indices, 8), w, h, 8, palette=quads(300), colours=300))
add("colours300_grey.bmp", bmp(bmp_rows(indices, 8), w, h, 8, palette=quads(300, grey=True) , colours=300))
add("colours70000.bmp", bmp(bmp_rows(indices, 8), w, h, 8, palette=quads(256), colours=70000))
add("offset_zero.bmp", bmp(bmp_rows(indices, 8), w, h, 8, palette=quads(256), offset=0))
add("offset_at_palette.bmp", bmp(bmp_rows(indices, 8), w, h, 8, palette=quads(256), offset=54), odd=True)
add("gap_before_pixels.bmp", bmp(b"gap!" + bmp_rows(indices, 8), w, h, 8, palette=quads(256), offset=54 + 1024 + 4))
for top_down in (False, True):
    data = bmp(bgr_rows(small, top_down), w, h, 24, top_down=top_down)
    add(f"bits24{'_top_down' if top_down else ''}.bmp", data)
    cuts(f"bits24{'_top_down' if top_down else ''}.bmp", data, (1, 10, 50, 99))
add("bits24_os2.bmp", bmp(bgr_rows(small), w, h, 24, header=12))
for header in (52, 56, 64, 108, 124):
    add(f"bits24_header{header}.bmp", bmp(bgr_rows(small), w, h, 24, header=header))
add("bits24_size_zero.bmp", bmp(bgr_rows(small), w, h, 24, size_image=0))
add("bits24_with_palette.bmp", bmp(bgr_rows(small), w, h, 24, palette=quads(16), colours=16))
add("bits24_without_last_padding.bmp", bmp(bgr_rows(small)[:-1], w, h, 24))
add("bits24_tail.bmp", bmp(bgr_rows(small), w, h, 24) + bytes(999))
add("bits24_bitfields.bmp", bmp(bgr_rows(small), w, h, 24, 3, masks=struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)))
values16 = random.integers(0, 65536, (h, w))
add("bits16.bmp", bmp(bmp_rows(values16, 16), w, h, 16), odd=True)
cuts("bits16.bmp", files["bits16.bmp"], (50, 90))
for name, masks in (("555", (0x7C00, 0x3E0, 0x1F)), ("565", (0xF800, 0x7E0, 0x1F)), ("444", (0xF00, 0xF0, 0xF)), ("555_bgr", (0x1F, 0x3E0, 0x7C00))):
    for header in (40, 52, 56, 108, 124):
        data = bmp(bmp_rows(values16, 16), w, h, 16, 3, header=header, masks=struct.pack("<III", *masks))
        add(f"bits16_{name}_header{header}.bmp", data, odd=header == 40 and name == "565")
    masks = struct.pack("<IIII", *masks, 0x8000)
    add(f"bits16_{name}_alpha.bmp", bmp(bmp_rows(values16, 16), w, h, 16, 3, header=124, masks=masks))
values32 = random.integers(0, 1 << 32, (h, w))
add("bits32.bmp", bmp(bmp_rows(values32, 32), w, h, 32))
cuts("bits32.bmp", files["bits32.bmp"], (50,))
add("bits32_saved.bmp", saved(alpha, "BMP"))
for masks in (
    (0xFF0000, 0xFF00, 0xFF, 0),
    (0xFF000000, 0xFF0000, 0xFF00, 0),
    (0xFF000000, 0xFF00, 0xFF, 0),
    (0xFF000000, 0xFF0000, 0xFF00, 0xFF),
    (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
    (0xFF0000, 0xFF00, 0xFF, 0xFF000000),
    (0xFF000000, 0xFF00, 0xFF, 0xFF0000),
    (0, 0, 0, 0),
    (0xFF, 0xFF00, 0xFF0000, 0),
    (0x3FF00000, 0xFFC00, 0x3FF, 0),
):
    for header in (40, 52, 56, 108, 124):
        if header == 40 and masks[3]:
            continue
        given = struct.pack("<IIII", *masks)[: 12 if header in (40, 52) else 16]
        name = "_".join(f"{mask:x}" for mask in masks)
        data = bmp(bmp_rows(values32, 32), w, h, 32, 3, header=header, masks=given)
        add(f"bits32_{name}_header{header}.bmp", data)
for bits in (2, 3, 64):
    add(f"bits{bits}.bmp", bmp(bytes(h * 48), w, h, bits, palette=quads(4)))
for compression in (4, 5, 6, 11):
    add(f"compression{compression}.bmp", bmp(bgr_rows(small), w, h, 24, compression))
add("header16.bmp", bmp(bgr_rows(small), w, h, 24, header=40)[:14] + struct.pack("<I", 16) + bytes(60))
add("negative_width.bmp", bmp(bgr_rows(small), -w, h, 24))
add("zero_width.bmp", bmp(bgr_rows(small), 0, h, 24))
add("planes0.bmp", bmp(bgr_rows(small), w, h, 24)[:26] + bytes(2) + bmp(bgr_rows(small), w, h, 24)[28:])


def rle8(samples, end_of_bitmap=True, absolute=True):
    data = b""
    for row in samples[::-1]:
        at = 0
        while at < len(row):
            run = 1
            while at + run < len(row) and run < 255 and row[at + run] == row[at]:
                run += 1
            if run == 1 and absolute and len(row) - at >= 5:
                data += b"\0\5" + row[at : at + 5].astype(numpy.uint8).tobytes() + b"\0"
                at += 5
            else:
                data += bytes([run, row[at]])
                at += run
        data += b"\0\0"
    return data[:-2] + b"\0\1" if end_of_bitmap else data


def rle4(samples, absolute=True):
    data = b""
    for row in samples[::-1]:
        at = 0
        while at < len(row):
            if absolute and len(row) - at >= 6 and at % 12 == 0:
                data += b"\0\6" + packed(row[at : at + 6], 4) + b"\0"
                at += 6
            else:
                pair = row[at : at + 2]
                data += bytes([len(pair), packed(numpy.resize(pair, 2), 4)[0]])
                at += len(pair)
        data += b"\0\0"
    return data[:-2] + b"\0\1"


blocky = (numpy.asarray(photo.convert("L").resize((15, 12)).resize((w, h), 0)) >> 4).astype(int)
grey_quads = quads(256, grey=True)
for absolute in (False, True):
    name = "_absolute" if absolute else ""
    add(f"rle8{name}.bmp", bmp(rle8(blocky * 16, absolute=absolute), w, h, 8, 1, palette=quads(256)), odd=absolute)
    add(f"rle4{name}.bmp", bmp(rle4(blocky, absolute=absolute), w, h, 4, 2, palette=quads(16)), odd=absolute)
    add(f"rle8_grey{name}.bmp", bmp(rle8(blocky * 16, absolute=absolute), w, h, 8, 1, palette=grey_quads))
add("rle8_top_down.bmp", bmp(rle8(blocky), w, h, 8, 1, palette=quads(256), top_down=True))
cuts("rle8.bmp", files["rle8.bmp"], (50, 80, 99))
cuts("rle4.bmp", files["rle4.bmp"], (50, 80, 99))
add("rle8_without_end.bmp", bmp(rle8(blocky, end_of_bitmap=False), w, h, 8, 1, palette=quads(256)))
add("rle8_ends_early.bmp", bmp(rle8(blocky[20:]), w, h, 8, 1, palette=quads(256)))
add("rle8_run_too_long.bmp", bmp(b"\xff\7\0\0" * h + b"\0\1", w, h, 8, 1, palette=quads(256)))
add("rle4_run_too_long.bmp", bmp(b"\xff\x73\0\0" * h + b"\0\1", w, h, 4, 2, palette=quads(16)))
add("rle8_delta.bmp", bmp(b"\5\3\0\2\4\1" + b"\4\2" + b"\7\6\0\0" * h + b"\0\1", w, h, 8, 1, palette=quads(256)), odd=True)
add("rle8_short_rows.bmp", bmp(b"\5\3\0\0" * h + b"\0\1", w, h, 8, 1, palette=quads(256)))
add("rle4_odd_absolute.bmp", bmp(b"\0\5\x12\x34\x50\0\0\0" * h + b"\0\1", w, h, 4, 2, palette=quads(16)))
add("rle8_in_4_bits.bmp", bmp(rle8(blocky), w, h, 4, 1, palette=quads(16)))
add("rle8_black_white.bmp", bmp(rle8(blocky // 8), w, h, 8, 1, palette=b"\0\0\0\0\xff\xff\xff\0", colours=2))
add("rle8_of_24_bits.bmp", bmp(rle8(blocky), w, h, 24, 1))
for mode in ("1", "L", "P", "RGB"):
    add(f"saved_{mode}.bmp", saved(photo.convert(mode), "BMP"))
add("saved_large.bmp", saved(large, "BMP"))
for length in (2, 10, 14, 18, 30, 53, 54, 60):
    add(f"cut_to_{length}_bytes.bmp", bmp(bmp_rows(indices, 8), w, h, 8, palette=quads(256))[:length])
for width, height in ((1, 1), (2, 1), (3, 2), (5, 7)):
    add(f"bits24_{width}x{height}.bmp", bmp(bgr_rows(small[:height, :width]), width, height, 24))

# WebP


def riff(*chunks):
    body = b"WEBP" + b"".join(kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for kind, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def chunks_of(data):
    at, result = 12, []
    while at < len(data):
        length = struct.unpack("<I", data[at + 4 : at + 8])[0]
        result.append((data[at : at + 4], data[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    return result


def three(value):
    return struct.pack("<I", value)[:3]


def vp8x(flags, width, height):
    return b"VP8X", bytes([flags, 0, 0, 0]) + three(width - 1) + three(height - 1)


def anmf(image, at=(0, 0), blend=0, dispose=0):
    """An animation frame of a still file."""
    parts = [part for part in chunks_of(image) if part[0] in (b"ALPH", b"VP8 ", b"VP8L")]
    size = Image.open(io.BytesIO(image)).size
    head = three(at[0] // 2) + three(at[1] // 2) + three(size[0] - 1) + three(size[1] - 1) + three(80)
    return b"ANMF", head + bytes([blend << 1 | dispose]) + riff(*parts)[12:]


anim = b"ANIM", bytes([10, 200, 30, 255, 0, 0])
for quality in (0, 20, 50, 75, 90, 100):
    for method in (0, 4, 6):
        add(f"lossy_q{quality}_m{method}.webp", saved(photo, "WEBP", quality=quality, method=method))
    add(f"lossy_large_q{quality}.webp", saved(large, "WEBP", quality=quality))
    add(f"lossy_alpha_q{quality}.webp", saved(alpha, "WEBP", quality=quality, alpha_quality=quality), odd=quality == 50)
for quality in (0, 50, 100):
    for name, image in (("", photo), ("_large", large), ("_palette", photo.quantize(9).convert("RGB")), ("_grey", photo.convert("L"))):
        add(f"lossless{name}_q{quality}.webp", saved(image.convert("RGB"), "WEBP", lossless=True, quality=quality))
    add(f"lossless_alpha_q{quality}.webp", saved(alpha, "WEBP", lossless=True, quality=quality))
    add(f"lossless_alpha_exact_q{quality}.webp", saved(alpha, "WEBP", lossless=True, quality=quality, exact=True))
for count in (1, 2, 3, 5, 17):
    add(f"lossless_colours{count}.webp", saved(photo.quantize(count).convert("RGB"), "WEBP", lossless=True))
for width, height in ((1, 1), (2, 3), (3, 2), (16, 16), (17, 15), (33, 1), (1, 40)):
    image = drawn(60, 40).resize((width, height))
    add(f"lossy_{width}x{height}.webp", saved(image, "WEBP"))
    add(f"lossless_{width}x{height}.webp", saved(image, "WEBP", lossless=True))
add("metadata.webp", saved(photo, "WEBP", exif=exif, icc_profile=bytes(200), xmp=b"<x/>"))
lossy, lossless, transparent = (files[f"{name}.webp"] for name in ("lossy_q75_m4", "lossless_q50", "lossy_alpha_q75"))
small_lossy = saved(drawn(20, 16), "WEBP")
small_lossless = saved(drawn(20, 16), "WEBP", lossless=True)
small_alpha = saved(with_alpha(drawn(20, 16)), "WEBP")
small_lossless_alpha = saved(with_alpha(drawn(20, 16)), "WEBP", lossless=True, exact=True)
for name, options in (("lossy", {}), ("lossless", {"lossless": True}), ("mixed", {"allow_mixed": True})):
    for kind, images in (("opaque", frames), ("alpha", [with_alpha(image) for image in frames])):
        data = saved(images[0], "WEBP", save_all=True, append_images=images[1:], duration=90, **options)
        add(f"animated_{name}_{kind}.webp", data, odd=name != "mixed")
        cuts(f"animated_{name}_{kind}.webp", data, (30, 60, 95))
for name, still in (("lossy", small_lossy), ("lossless", small_lossless), ("alpha", small_alpha), ("lossless_alpha", small_lossless_alpha)):
    for at in ((0, 0), (6, 10)):
        for blend in (0, 1):
            for flags in (0x02, 0x12):
                parts = vp8x(flags, 45, 37), anim, anmf(still, at, blend, dispose=1), anmf(small_lossy, (2, 2))
                odd = at[0] and name != "lossless"
                add(f"frame_{name}_at{at[0]}_blend{blend}_flags{flags:02x}.webp", riff(*parts), odd=bool(odd and blend and flags == 0x12))
add("animated_one_frame.webp", riff(vp8x(2, 20, 16), anim, anmf(small_lossy)))
add("animated_without_frames.webp", riff(vp8x(2, 20, 16), anim))
add("animated_without_anim.webp", riff(vp8x(2, 20, 16), anmf(small_lossy)))
add("frame_beyond_canvas.webp", riff(vp8x(2, 20, 16), anim, anmf(small_lossy, (4, 0))))
add("frame_larger.webp", riff(vp8x(2, 10, 10), anim, anmf(small_lossy)))
add("second_frame_broken.webp", riff(vp8x(2, 20, 16), anim, anmf(small_lossy), (b"ANMF", anmf(small_lossy)[1][:60])))
body = chunks_of(lossy)
add("extended_still.webp", riff(vp8x(0, 45, 37), *body))
add("extended_still_alpha_flag.webp", riff(vp8x(0x10, 45, 37), *body), odd=True)
add("extended_still_lossless.webp", riff(vp8x(0, 45, 37), *chunks_of(lossless)))
add("extended_canvas_larger.webp", riff(vp8x(0, 60, 50), *body), odd=True)
add("extended_canvas_smaller.webp", riff(vp8x(0, 30, 30), *body))
add("extended_alpha_without_flag.webp", riff(vp8x(0, 45, 37), *[part for part in chunks_of(transparent) if part[0] != b"VP8X"]), odd=True)
add("extended_flags_without_chunks.webp", riff(vp8x(0x2C, 45, 37), *body), odd=True)
add("extended_animation_flag_on_still.webp", riff(vp8x(2, 45, 37), *body))
add("extended_two_images.webp", riff(vp8x(0, 45, 37), *body, *body))
add("unknown_chunk_first.webp", riff((b"ABCD", b"abc"), *body))
add("unknown_chunk_last.webp", riff(*body, (b"ABCD", b"abc")))
add("unknown_chunk_extended.webp", riff(vp8x(0, 45, 37), (b"ABCD", b"abc"), *body, (b"EFGH", b"e")))
add("exif_without_extended.webp", riff(*body, (b"EXIF", b"exif")))
add("tail.webp", lossy + b"tail" * 30, odd=True)
add("riff_size_too_small.webp", lossy[:4] + struct.pack("<I", len(lossy) - 8 - 40) + lossy[8:])
add("riff_size_too_large.webp", lossy[:4] + struct.pack("<I", len(lossy) + 40) + lossy[8:], odd=True)
add("riff_size_odd.webp", lossy[:4] + struct.pack("<I", len(lossy) - 9) + lossy[8:])
for name, data in (("lossy", lossy), ("lossless", lossless), ("lossy_alpha", transparent)):
    cuts(f"{name}.webp", data, (2, 10, 40, 70, 90, 99), odd=name == "lossy")
    kept = chunks_of(data)
    for share in (40, 80, 99):
        *head, (kind, payload) = kept
        add(f"{name}_payload{share}.webp", riff(*head, (kind, payload[: len(payload) * share // 100])), odd=share == 80)
        broken = bytearray(payload)
        at = len(broken) * share // 100
        broken[at : at + 5] = bytes(255 - value for value in broken[at : at + 5])
        add(f"{name}_overwritten{share}.webp", riff(*head, (kind, broken)), odd=share == 40)
alph = [part for part in chunks_of(transparent)]
add("alpha_broken.webp", riff(*[(kind, data[:1] + bytes(len(data) - 1)) if kind == b"ALPH" else (kind, data) for kind, data in alph]))
add("alpha_short.webp", riff(*[(kind, data[: len(data) // 2]) if kind == b"ALPH" else (kind, data) for kind, data in alph]))
add("alpha_after.webp", riff(alph[0], *alph[:0:-1]))

# The content decides

add("jpeg_named.png", plain, odd=True)
add("png_named.jpg", saved(frames[0], "PNG"), odd=True)
add("gif_named.webp", files["rows.gif"])
add("bmp_named.gif", files["bits24_5x7.bmp"])
add("webp_named.bmp", lossless)
add("jfif.jfif", plain)
add("jpe.jpe", plain)
add("empty.jpg", b"")
add("text.jpg", b"<html>not found</html>")
add("tiff.tif", saved(photo, "TIFF"))


def expected(path):
    try:
        image = Image.open(path)
        pixels = image.convert("RGB")
    except Exception as error:
        return {"refused": f"{type(error).__name__}: {error}".replace(str(path), path.name)}
    if image.format not in ("JPEG", "MPO", "PNG", "GIF", "BMP", "WEBP"):
        return {"refused": f"the format is {image.format}"}
    result = {"size": list(pixels.size), "sha256": hashlib.sha256(pixels.tobytes()).hexdigest()}
    if len(set(pixels.getdata())) == 1 and pixels.size[0] * pixels.size[1] > 50:
        result["blank"] = True
    return result


def main():
    folder = pathlib.Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    results = {}
    for name, data in files.items():
        if "--odd" in sys.argv and name not in odd_names:
            continue
        path = folder / name
        path.write_bytes(data)
        results[name] = expected(path)
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(result)}" for name, result in sorted(results.items()))
    (folder / "expected.json").write_text(f"{{\n{lines}\n}}\n")
    refused = sum("refused" in result for result in results.values())
    print(f"{len(results)} files, of which Pillow refuses {refused}: {sum(map(len, files.values()))} bytes")


main()
