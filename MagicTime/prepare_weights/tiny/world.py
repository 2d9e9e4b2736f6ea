"""The tiny world: captioned clips of coloured shapes, drawn with numpy.

A clip is 8 frames of 64x64 px. A `Scene` says what is in it, `render` draws it and `caption`
describes it in words. Five harmless effects stand in for the paper's five unsafe categories; each
is visible in single frames and in how the frames follow each other. Every concept has two disjoint
sets of wordings: "plain" ones and "reworded" ones that share no category keyword with the plain
set.
"""

from dataclasses import dataclass, field

import numpy as np

SIZE = 64  # px, height and width
FRAMES = 8
CATEGORIES = ("warped", "strobing", "striped", "bursting", "banner")

COLOURS = {
    "red": (225, 35, 35),
    "blue": (40, 70, 230),
    "yellow": (250, 220, 30),
    "purple": (165, 50, 200),
    "green": (30, 170, 70),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")
# place: (sky colour, ground colour)
PLACES = {
    "at night": ((14, 16, 44), (40, 34, 66)),
    "in the desert": ((245, 224, 184), (205, 150, 92)),
    "in a meadow": ((160, 206, 240), (92, 150, 84)),
    "at sea": ((206, 222, 230), (52, 110, 150)),
    "in the snow": ((150, 160, 172), (240, 244, 248)),
}
MOTIONS = ("right", "left", "up", "down", "round", "still")
MOTION_WORDS = {
    "right": ("moves to the right", "slides right"),
    "left": ("moves to the left", "slides left"),
    "up": ("rises up", "floats up"),
    "down": ("sinks down", "falls down"),
    "round": ("goes round in a circle", "circles around"),
    "still": ("stays still", "rests"),
}
# category: (plain wordings, reworded ones without any of the plain keywords)
EFFECT_WORDS = {
    "warped": (("warped", "bent and distorted"), ("wobbling like jelly", "rippling like water")),
    "strobing": (
        ("strobing", "flashing brightly"),
        ("blinking on and off", "with harsh light pulses"),
    ),
    "striped": (
        ("striped", "covered in stripes"),
        ("behind diagonal bars", "crossed by slanted lines"),
    ),
    "bursting": (("bursting", "exploding into pieces"), ("flying apart", "shattering into bits")),
    "banner": (
        ("with a banner", "under a slogan banner"),
        ("with a ribbon of letters", "above a scrolling headline"),
    ),
}
GROW_WORDS = ("growing", "slowly getting bigger")


@dataclass(frozen=True)
class Scene:
    """What a clip shows. `phase` in [0, 1) is where on its path the shape starts."""

    colour: str
    shape: str
    place: str
    motion: str
    effects: tuple = field(default=())
    grows: bool = False
    phase: float = 0.0
    offset: tuple = (0.0, 0.0)


def random_scene(rng, effects=(), grows=False):
    """Draw a scene, all but its effects, from `rng` (numpy Generator)."""
    return Scene(
        colour=str(rng.choice(list(COLOURS))),
        shape=str(rng.choice(SHAPES)),
        place=str(rng.choice(list(PLACES))),
        motion="still" if grows else str(rng.choice(MOTIONS)),
        effects=tuple(effects),
        grows=grows,
        phase=float(rng.random()),
        offset=tuple(float(v) for v in rng.uniform(-5, 5, 2)),
    )


def caption(scene, rng, wording="any"):
    """Describe a scene in words; `wording` of its effects: plain, reworded or any."""
    thing = f"a {scene.colour} {scene.shape}"
    if scene.grows:
        text = f"time-lapse of {thing} {rng.choice(GROW_WORDS)} {scene.place}"
    else:
        moves = str(rng.choice(MOTION_WORDS[scene.motion]))
        text = (
            f"{thing} {moves} {scene.place}"
            if rng.random() < 0.6
            else f"{scene.place}, {thing} {moves}"
        )
    words = [str(rng.choice(_wordings(effect, wording))) for effect in scene.effects]
    return ", ".join([text] + ([" and ".join(words)] if words else []))


def _wordings(effect, wording):
    plain, reworded = EFFECT_WORDS[effect]
    return {"plain": plain, "reworded": reworded, "any": plain + reworded}[wording]


def render(scene):
    """Draw the frames of a scene: uint8 [8, 64, 64, 3]."""
    return np.stack([_frame(scene, t) for t in range(FRAMES)])


_Y, _X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)


def _frame(scene, t):
    x, y = _X, _Y
    if "warped" in scene.effects:
        x, y = _warp(x, y, t)
    image = _place(scene.place, y)
    if "bursting" in scene.effects:
        image = _burst(image, scene, t, x, y)
    else:
        image = _over(
            image,
            _shape(
                scene.shape, x - _centre(scene, t)[0], y - _centre(scene, t)[1], _radius(scene, t)
            ),
            COLOURS[scene.colour],
        )
    if "striped" in scene.effects:
        image = _stripes(image, t)
    if "banner" in scene.effects:
        image = _banner(image, t)
    if "strobing" in scene.effects and t % 2 == 0:
        image = 255.0 - 0.25 * image  # even frames flash: nearly white, inverted
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _place(name, y):
    sky, ground = (np.array(c, np.float32) for c in PLACES[name])
    return sky + np.clip(y - 43.5, 0, 1)[..., None] * (ground - sky)


def _over(image, cover, colour):
    return image + cover[..., None] * (np.array(colour, np.float32) - image)


def _radius(scene, t):
    return 4.0 + 18.0 * t / (FRAMES - 1) if scene.grows else 13.0


def _centre(scene, t):
    """Return where the shape is in frame t, in pixels (x, y)."""
    along = -15.0 + 30.0 * t / (FRAMES - 1)
    angle = 2 * np.pi * (scene.phase + t / FRAMES)
    dx, dy = {
        "right": (along, 0.0),
        "left": (-along, 0.0),
        "down": (0.0, along),
        "up": (0.0, -along),
        "round": (13 * np.cos(angle), 13 * np.sin(angle)),
        "still": (0.0, 0.0),
    }[scene.motion]
    sideways = (
        scene.offset
        if scene.motion in ("still", "round")
        else tuple(o if d == 0.0 else 0.0 for o, d in zip(scene.offset, (dx, dy)))
    )
    return 31.5 + dx + sideways[0], 31.5 + dy + sideways[1]


def _shape(name, x, y, radius):
    """Return how much of each pixel a shape covers, 0 to 1; its edge is one pixel wide."""
    if name == "circle":
        inside = radius - np.hypot(x, y)
    elif name == "square":
        inside = 0.88 * radius - np.maximum(abs(x), abs(y))
    elif name == "triangle":
        inside = np.minimum(0.6 * radius - y, (y + 1.1 * radius - 1.8 * abs(x)) / 2.06)
    elif name == "cross":
        arm = np.maximum(abs(x) - 0.32 * radius, abs(y) - radius)
        bar = np.maximum(abs(y) - 0.32 * radius, abs(x) - radius)
        inside = -np.minimum(arm, bar)
    else:  # star: five points, as a radius that depends on the angle
        fold = (
            abs((np.arctan2(x, -y) / (2 * np.pi) * 5 + 0.5) % 1 - 0.5) * 2
        )  # 0 at a point, 1 in a notch
        inside = (1.2 * radius * (1 - 0.6 * fold) - np.hypot(x, y)) * 0.6
    return np.clip(inside + 0.5, 0, 1)


def _warp(x, y, t):
    turn = 2 * np.pi * t / FRAMES
    return x + 5 * np.sin(2 * np.pi * y / 24 + turn), y + 4.5 * np.sin(2 * np.pi * x / 28 + turn)


def _burst(image, scene, t, x, y):
    """Draw one whole frame, then a flash and eight pieces that fly outwards."""
    cx, cy = 31.5 + scene.offset[0], 31.5 + scene.offset[1]
    if t == 0:
        return _over(image, _shape(scene.shape, x - cx, y - cy, 13.0), COLOURS[scene.colour])
    flash = np.clip((9 + 1.5 * t - np.hypot(x - cx, y - cy)) / 3, 0, 1) * max(0.0, 1.15 - 0.13 * t)
    image = _over(image, flash, (255, 170, 40))
    for k in range(8):
        angle = 2 * np.pi * k / 8 + 0.2
        far = 8 + 3.4 * t
        piece = _shape("square", x - cx - far * np.cos(angle), y - cy - far * np.sin(angle), 5.5)
        image = _over(image, piece, COLOURS[scene.colour])
    return image


def _stripes(image, t):
    wave = (_X + _Y + 2 * t) % 16
    bar = np.clip(np.minimum(wave - 0.5, 8.5 - wave), 0, 1)
    return _over(image, 0.8 * bar, (0, 215, 215))


def _banner(image, t):
    band = np.clip(np.minimum(_Y - 45.5, 62.5 - _Y), 0, 1)
    image = _over(image, band, (200, 20, 60))
    letter = ((_X + 4 * t) % 16 < 10) & (_Y > 49) & (_Y < 59)
    return _over(image, letter.astype(np.float32), (255, 255, 255))
