"""What every command shares: one-line errors, exit statuses, the device, the closing summary."""

import argparse
import sys

from lvd.errors import InputError


class Parser(argparse.ArgumentParser):
    """ArgumentParser whose errors are one line (InputError) and whose help keeps the example's layout."""

    def __init__(self, description, example):
        super().__init__(description=description, epilog=f"example:\n  {example}", allow_abbrev=False,
                         formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message):
        raise InputError(f"{message} (see {self.prog} --help)")


def run_command(parser, work, argv=None):
    """Parse argv, call work(args) and return an exit status: 0, 2 for bad input, files that cannot be written or
    too little memory, 130 when interrupted."""
    try:
        work(parser.parse_args(argv))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder that may not be written, a file where a folder should be
        print(f"error: {error.filename or 'file'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except (RuntimeError, MemoryError) as error:
        if not _out_of_memory(error):
            raise
        print(f"error: out of memory ({' '.join(str(error).split())[:160]}); a smaller batch, fewer workers or another "
              f"device is needed", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    return 0


def _out_of_memory(error):
    """Torch raises OutOfMemoryError on a GPU, a bare RuntimeError of its allocator on the CPU."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error)


def pick_device(gpu_num, asked_by="--gpu_num"):
    """torch.device of `--gpu_num`: that CUDA device, or the CPU with one line that says so."""
    import torch

    if gpu_num < 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        print(f"{asked_by} {gpu_num}: no CUDA device here, using the CPU", file=sys.stderr)
        return torch.device("cpu")
    if gpu_num >= torch.cuda.device_count():
        raise InputError(f"{asked_by} {gpu_num}: this machine has {torch.cuda.device_count()} CUDA device(s), from 0")
    return torch.device("cuda", gpu_num)


def plural(count, noun):
    """"1 video", "2 videos"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def summary(title, facts, paths):
    """Print what was done: `facts` as {name: value}, then the paths that were written."""
    print(f"\n{title}")
    for name, value in facts.items():
        print(f"  {name}: {value}")
    for path in paths:
        print(f"  wrote {path}")
