"""Small pictures with smooth structure, for tests: JPEG keeps them, and resizing modes differ on them only a little."""

from pathlib import Path

import numpy as np
from PIL import Image

# awkward on purpose: odd, tall, wide, tiny, and one with the target's own size
SIZES = [(97, 61), (64, 64), (33, 80), (120, 90), (50, 49), (224, 100), (16, 16), (75, 131)]


def smooth_picture(width: int, height: int, seed: int) -> np.ndarray:
    """uint8 [height, width, 3]: a few soft waves a channel."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    channels = []
    for _ in range(3):
        fx, fy, phase = rng.uniform(0.01, 0.12), rng.uniform(0.01, 0.12), rng.uniform(0, 6.3)
        channels.append(127 + 80 * np.sin(fx * x + fy * y + phase) + 40 * np.cos(fy * x - fx * y))
    return np.clip(np.stack(channels, axis=-1), 0, 255).astype(np.uint8)


def write_image_folder(root: Path, num_per_class: dict[str, dict[str, int]], quality: int = 92) -> Path:
    """Write `root/<split>/<class>/<n>.jpg` for {split: {class: count}}; sizes run through SIZES."""
    seed = 0
    for split, classes in num_per_class.items():
        for name, count in classes.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for n in range(count):
                width, height = SIZES[seed % len(SIZES)]
                Image.fromarray(smooth_picture(width, height, seed)).save(folder / f"{n:03d}.jpg", quality=quality)
                seed += 1
    return root
