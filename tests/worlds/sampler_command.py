"""MagicTime/inference_magictime.py as tests run it: on the CPU, in this process."""

from MagicTime import inference_magictime


def command(config, out, *words):
    """The arguments of a run of the YAML `config` into the folder `out`."""
    return ["--config", str(config), "--save-path", str(out), "--gpu_num", "-1", *map(str, words)]


def sample(config, out, *words):
    """Run the sampler; returns its exit status."""
    return inference_magictime.main(command(config, out, *words))
