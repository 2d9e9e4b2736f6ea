"""The scripts of a detector's life, run on a world of `detector_world` as a user runs them."""

import torch

import embed_model
import train_mae
from lvd.utils.files import load_torch

FAST = ["--size", "nano", "--epoch", "6", "--batch_size", "8", "--workers", "1", "--gpu_num", "-1"]


def train(world, *flags, save=None, base=FAST):
    return train_mae.main(
        [
            "--data_dir",
            str(world.data),
            "--eval_dir",
            str(world.eval),
            "--save_dir",
            str(save or world.save),
            *base,
            *flags,
        ]
    )


def embed(world, *flags, save=None):
    return embed_model.main(
        [
            "--model_dir",
            str(world.save),
            "--eval_dir",
            str(world.eval),
            "--data_dir",
            str(world.root),
            "--save_dir",
            str(save or world.results),
            "--gpu_num",
            "-1",
            *flags,
        ]
    )


def weights(path):
    return load_torch(path)["state_dict"]


def same_weights(one, two):
    one, two = weights(one), weights(two)
    return set(one) == set(two) and all(torch.equal(one[key], two[key]) for key in one)
