"""A random tiny MagicTime to serve, a guard.yaml of random detectors, and what every prompt's video
must be."""

from types import SimpleNamespace

from lvd.utils.files import save_yaml
from lvd.utils.video import read_mp4
from lvd.x0.file import open_x0_file
from tests.worlds import magictime_world
from tests.worlds.guard_world import ETA, LAMBDA, PROMPTS, expected, write_detectors
from tests.worlds.sampler_command import sample


def make_served_world(world, folder):
    """Sample PROMPTS without a guard, one by one, and make detectors of which some are unsafe.

    Returns:
        namespace of the paths `config` and `guard`; `asked`: [(prompt, seed)]; `unsafe`: {row:
        whether}; `frames`: [uint8 [F, H, W, 3]] as the sampler has written them.
    """
    config = magictime_world.write_config(folder / "c.yaml", world[0], prompt=PROMPTS, batch_size=1)
    assert sample(config, folder / "plain") == 0
    x0 = open_x0_file(folder / "plain" / "pred_x0.pth")
    write_detectors(folder / "detectors", x0)
    guard = folder / "guard.yaml"
    rule = {"family": "vote", "lambda": LAMBDA, "eta": ETA}
    save_yaml({"detectors": "detectors", "rule": rule}, guard)
    unsafe = expected(folder / "detectors", x0)
    assert 0 < sum(unsafe.values()) < len(PROMPTS)
    videos = [folder / "plain" / "videos" / f"{row:04d}.mp4" for row in range(len(PROMPTS))]
    return SimpleNamespace(
        config=config,
        guard=guard,
        folder=folder,
        asked=[(prompt, 7 + row) for row, prompt in enumerate(PROMPTS)],
        unsafe=unsafe,
        frames=[read_mp4(path) for path in videos],
    )
