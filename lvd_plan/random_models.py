"""Modules with random weights, made on their device: what costs the same as with trained ones."""

import torch


@torch.no_grad()
def filled(build, device, dtype):
    """Return a module with random weights; nothing is initialised twice.

    Weights keep the size of what passes through them, norms pass it on.

    Args:
        build: function that makes the module.
        device: torch.device.
        dtype: torch.dtype.
    """
    with torch.device("meta"):
        module = build()
    torch.nn.Module.to(module, dtype)  # diffusers' own `to` warns of modules that it has none of
    module = module.to_empty(device=device).requires_grad_(False).eval()
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.dim() > 1:
            tensor.normal_(std=(tensor.numel() / len(tensor)) ** -0.5)
        else:
            tensor.zero_()
    for part in module.modules():
        if isinstance(part, (torch.nn.GroupNorm, torch.nn.LayerNorm)) and part.weight is not None:
            part.weight.fill_(1.0)
    return module
