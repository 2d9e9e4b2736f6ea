"""What a batch of videos is recorded into while it is sampled: x0 (and x_t) of the wanted ones, on
the CPU."""

import torch


class BatchRecording:
    """Tensors [S, B, C, F, h, w] of the `wanted` rows of a batch, filled step by step, then written
    to their files.

    writers: {key: lvd.x0.file.X0Writer}; dtype: of the files; latent_shape: (C, F, h, w).
    """

    def __init__(self, writers, wanted, steps, latent_shape, dtype, device):
        self._writers, self._wanted, self._dtype, self._device = writers, wanted, dtype, device
        self._on_gpu = device.type == "cuda"
        self._steps = dict.fromkeys(wanted, 0)  # recorded of each row
        self._rows, self._picked = (
            None,
            None,
        )  # who was there at the last step, and the places of the wanted among them
        # Pinned, so that copies need not wait for the GPU.
        self._kept = {
            key: torch.empty(
                (steps, len(wanted), *latent_shape), dtype=dtype, pin_memory=self._on_gpu
            )
            for key in writers
        }

    def step(self, step, values, rows):
        """values: {key: [n, C, F, h, w] of the rows `rows`}, in their order. Rows that are not
        wanted are left out."""
        here = [row for row in self._wanted if row in rows]
        if rows != self._rows:
            places = [rows.index(row) for row in here]
            self._rows, self._picked = (
                list(rows),
                slice(None) if here == rows else torch.tensor(places, device=self._device),
            )
        for row in here:
            self._steps[row] = step + 1
        for key, kept in self._kept.items():
            found = values[key][self._picked].to(self._dtype)
            if len(here) == len(self._wanted):
                kept[step].copy_(found, non_blocking=self._on_gpu)
                continue
            for row, value in zip(here, found, strict=True):
                kept[step, self._wanted.index(row)].copy_(value, non_blocking=self._on_gpu)

    def write(self, whole, infos):
        """The rows of `whole`, with their infos, as finished ones; the others as far as they were
        sampled."""
        places = [self._wanted.index(row) for row in whole]
        for key, writer in self._writers.items():
            for place, row in enumerate(self._wanted):
                if row not in whole:
                    writer.write_seen(row, self._kept[key][: self._steps[row], place])
            if whole:
                writer.write_rows(whole, [self._kept[key][:, place] for place in places], infos)
