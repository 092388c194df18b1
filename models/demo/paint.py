"""Paint models/demo/style.jpg: an invented landscape in strokes of a brush along a flow field.

usage: python models/demo/paint.py

Underpainting, three passes of ever finer strokes, each a bundle of bristles, and light from the upper left on the
relief of the paint. Nothing in it comes from another picture.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

HEIGHT, WIDTH = 480, 640
SUNS = ((500, 110, 74), (150, 70, 40), (320, 190, 52))  # x, y, radius
HILLS = ((330, 38, 160, 0.4), (385, 26, 95, 2.1), (430, 16, 60, 4.0))  # height, amplitude, length, phase
# RGB
NIGHT, TEAL, PALE = (18, 30, 92), (38, 112, 150), (150, 196, 205)
GOLD, LIGHT = (236, 170, 38), (252, 232, 150)
EARTH = ((24, 58, 74), (42, 88, 52), (128, 92, 30))
PASSES = ((26, 44, 420), (13, 34, 1900), (6, 24, 5200))  # width, length in steps of 2 pixels, strokes


def scene(x, y):
    """Colour (N, 3) of the imagined scene and the direction (N,) of the strokes there, in radians."""
    t = np.clip(y / 330, 0, 1)[:, None]
    waves = 0.5 + 0.5 * np.sin(x / 46 + 2.2 * np.sin(y / 61) + y / 31)[:, None]
    colour = (1 - t) * NIGHT + t * np.array(TEAL) + 0.35 * waves**3 * (np.array(PALE) - TEAL)
    flow_x, flow_y = np.full_like(x, 1.0), 0.45 * np.cos(x / 70 + y / 90)
    for cx, cy, radius in SUNS:
        dx, dy = x - cx, y - cy
        distance = np.hypot(dx, dy) + 1e-6
        pull = np.exp(-((distance / (2.2 * radius)) ** 2)) * 6
        flow_x, flow_y = flow_x - pull * dy / distance, flow_y + pull * dx / distance
        rings = 0.5 + 0.5 * np.cos(distance / radius * 9)
        glow = np.clip(1.5 - distance / radius, 0, 1)[:, None]
        core = (distance < 0.55 * radius)[:, None]
        gold = np.where(core, LIGHT, np.array(GOLD) * (0.75 + 0.25 * rings[:, None]))
        colour = colour * (1 - glow) + gold * glow
    for (level, amplitude, length, phase), earth in zip(HILLS, EARTH):
        crest = level - amplitude * np.sin(x / length * 2 + phase)
        inside = y > crest
        furrows = 0.8 + 0.4 * np.sin((y - crest) / 5 + 1.5 * np.sin(x / 37 + phase))
        colour = np.where(inside[:, None], np.array(earth) * furrows[:, None], colour)
        slope = -amplitude * 2 / length * np.cos(x / length * 2 + phase)
        flow_x, flow_y = np.where(inside, 1.0, flow_x), np.where(inside, slope * 1.6, flow_y)
    return colour, np.arctan2(flow_y, flow_x)


def stroke_path(x, y, steps, rng):
    """Points (steps, 2) from (x, y) along the flow."""
    points = np.empty((steps, 2))
    for i in range(steps):
        points[i] = x, y
        angle = scene(np.array([x]), np.array([y]))[1][0]
        x, y = x + 2 * np.cos(angle), y + 2 * np.sin(angle)
    return points + rng.normal(0, 0.4, (1, 2))


def paint(seed=3):
    """The painting, (HEIGHT, WIDTH, 3) RGB uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH].reshape(2, -1).astype(float)
    canvas = scene(x, y)[0].reshape(HEIGHT, WIDTH, 3).astype(np.float32) * 0.7
    relief = np.zeros((HEIGHT, WIDTH), np.float32)
    for width, length, count in PASSES:
        for _ in range(count):
            px, py = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT)
            path = stroke_path(px, py, max(4, int(length * rng.uniform(0.5, 1.2))), rng)
            base = scene(path[len(path) // 2, :1], path[len(path) // 2, 1:])[0][0]
            base = base * rng.uniform(0.82, 1.2) + rng.normal(0, 9, 3)
            direction = np.gradient(path, axis=0)
            normal = direction[:, ::-1] * (-1, 1) / np.linalg.norm(direction, axis=1, keepdims=True)
            bristles = max(3, width // 2)
            for offset in np.linspace(-0.5, 0.5, bristles):
                shade = rng.normal(1, 0.09)
                start, end = (int(len(path) * part) for part in (rng.uniform(0, 0.12), rng.uniform(0.86, 1)))
                line = path[start:end] + normal[start:end] * (offset * width + rng.normal(0, 0.3))
                line = np.rint(line * 16).astype(np.int32)[:, None]
                thick = max(1, round(width / bristles * 1.3))
                cv2.polylines(canvas, [line], False, (base * shade).tolist(), thick, cv2.LINE_AA, 4)
                cv2.polylines(relief, [line], False, float(shade + 0.6 * abs(offset)), thick, cv2.LINE_AA, 4)
    relief = cv2.GaussianBlur(relief, (0, 0), 0.8)
    light = cv2.Sobel(relief, cv2.CV_32F, 1, 0) + cv2.Sobel(relief, cv2.CV_32F, 0, 1)
    return (canvas * (1 + 0.16 * np.clip(light, -1.5, 1.5))[..., None]).clip(0, 255).astype(np.uint8)


if __name__ == "__main__":
    target = Path(__file__).with_name("style.jpg")
    cv2.imwrite(str(target), paint()[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
