"""What SVG pictures are made of: colours, text, lines, images, and the frame around a picture.

Every picture is as wide as a phone and grows with the screen.
"""
import base64
import html
import math
import textwrap

from support.command_line import printable
from support.png import png_bytes

import numpy as np
import torch

WIDTH = 440  # of a picture, in SVG's units
EDGE = 14  # free on both sides
INNER = WIDTH - 2 * EDGE

# A CSS class each: the property that it sets, and its value on light and on dark paper. The colours
# are by Okabe and Ito ("Color Universal Design", 2008), which colour-blind readers tell apart.
COLOURS = {"paper": ("fill", "#ffffff", "#15171a"), "ink": ("fill", "#1b1d20", "#e9eaec"),
           "soft": ("fill", "#5c6168", "#a4a9b1"), "shade": ("fill", "#dde1e6", "#2e3238"),
           "blue": ("fill", "#0072b2", "#56b4e9"), "heat": ("fill", "#d55e00", "#d55e00"),
           "wrong": ("fill", "#a94600", "#f0a860"), "line": ("stroke", "#d5d8dc", "#3a3f46"),
           "first": ("stroke", "#0072b2", "#56b4e9"), "second": ("stroke", "#d55e00", "#e69f00")}
LIGHT = "".join(f".{name}{{{key}:{light}}}" for name, (key, light, _) in COLOURS.items())
DARK = "".join(f".{name}{{{key}:{dark}}}" for name, (key, _, dark) in COLOURS.items())
FONT = "font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif"
STYLE = (f"text{{{FONT};font-variant-numeric:tabular-nums}}.pixels{{image-rendering:pixelated}}"
         f".line,.first,.second{{fill:none}}{LIGHT}@media(prefers-color-scheme:dark){{{DARK}}}")


# --- Elements -------------------------------------------------------------------------------------

def escape(words) -> str:
    """Any words as text of SVG or HTML: nothing in them is markup, or steers a terminal."""
    return html.escape(printable(words))


def tag(name: str, /, *inside: str, **attributes) -> str:
    """An element of SVG or HTML. `inside` is markup; attributes are escaped, `stroke_width` becomes
    stroke-width and `class_` class; numbers are rounded to hundredths."""
    words = ""
    for key, value in attributes.items():
        if isinstance(value, float):
            value = round(value, 2)
        key = key.rstrip("_").replace("_", "-")
        words += f' {key}="{escape(value)}"'
    if not inside:
        return f"<{name}{words}/>"
    return f"<{name}{words}>{''.join(inside)}</{name}>"


def text(x, y, words, class_="ink", anchor="start", size=13, **more) -> str:
    return tag("text", escape(words), x=x, y=y, class_=class_, text_anchor=anchor, font_size=size,
               **more)


def bold(x, y, words, class_="ink", anchor="start", size=13) -> str:
    return text(x, y, words, class_, anchor, size, font_weight=600)


def rect(x, y, width, height, class_, *inside, **more) -> str:
    return tag("rect", *inside, x=x, y=y, width=width, height=height, class_=class_, **more)


def line(x1, y1, x2, y2, class_="line", **more) -> str:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_, **more)


def image(x, y, width, pixels: np.ndarray) -> str:
    """Pixels (H, W) or (H, W, 3) uint8 as a PNG inside the picture."""
    data = base64.b64encode(png_bytes(pixels)).decode()
    return tag("image", x=x, y=y, width=width, class_="pixels",
               height=width * pixels.shape[0] / pixels.shape[1],
               href=f"data:image/png;base64,{data}")


def svg(name: str, height: float, title: str, words: str, parts: list[str]) -> str:
    """A picture: a title, a few words of explanation, and beneath them the parts, `height` high."""
    lines = textwrap.wrap(words, 56)
    top = 44 + 18 * len(lines)
    whole = round(top + height)
    head = [bold(EDGE, 26, title, size=16)]
    head += [text(EDGE, 47 + 18 * i, line, "soft") for i, line in enumerate(lines)]
    return tag("svg", tag("title", escape(title), id=f"{name}-title"),
               tag("desc", escape(words), id=f"{name}-desc"), tag("style", STYLE),
               rect(0, 0, WIDTH, whole, "paper"), *head,
               tag("g", *parts, transform=f"translate(0 {top})"), width=WIDTH, height=whole,
               viewBox=f"0 0 {WIDTH} {whole}", xmlns="http://www.w3.org/2000/svg",
               role="img", aria_labelledby=f"{name}-title {name}-desc")


# --- Tensors as pixels ----------------------------------------------------------------------------

def diverging(values: torch.Tensor) -> np.ndarray:
    """Values (...) from -1 to 1 as colours (..., 3) uint8: blue below zero, white, orange above."""
    white = torch.tensor([247.0, 247.0, 247.0])
    blue = torch.tensor([0.0, 90.0, 160.0])
    orange = torch.tensor([200.0, 80.0, 0.0])
    values = values.clamp(-1, 1).unsqueeze(-1)
    above = values.clamp(min=0)
    below = -values.clamp(max=0)
    return (white + (orange - white) * above + (blue - white) * below).byte().numpy()


def grid(maps: np.ndarray, columns: int, y: float) -> tuple[list[str], float]:
    """Maps (n, h, w, 3) uint8 in rows of so many, from `y` on; also the y beneath them."""
    size = INNER / columns
    parts = []
    for i, pixels in enumerate(maps):
        parts.append(image(EDGE + i % columns * size, y + i // columns * size, 0.9 * size, pixels))
    return parts, y + math.ceil(len(maps) / columns) * size


def ticks(low: float, high: float) -> list[float]:
    """About three to eight round numbers from `low` to `high`."""
    step = 10 ** math.floor(math.log10((high - low) / 3))
    for larger in (5, 2):
        if (high - low) / (larger * step) >= 3:
            step *= larger
            break
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
