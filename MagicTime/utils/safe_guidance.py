"""Safe Latent Diffusion (Schramowski et al., arXiv 2211.05105): guidance away from a concept.

The concept is said in words. Beside the unconditional noise and the prompt's noise the UNet
predicts the concept's noise. Where the prompt's noise lies on the concept's side, the direction of
classifier-free guidance is bent away from it.
Nothing is detected, so it goes together with a guard.
"""

from dataclasses import dataclass

import torch

from lvd.errors import InputError

NONE = "none"


@dataclass(frozen=True)
class SafeGuidance:
    """The hyperparameters of arXiv 2211.05105, section 3; called at every step.

    Attributes:
        warmup: steps before the guidance is changed (delta); momentum builds up from the first.
        scale: s_S.
        threshold: lambda.
        momentum_scale: s_m.
        momentum_beta: beta_m.
        concept: the words of what videos shall not show (S).
    """

    warmup: int
    scale: float
    threshold: float
    momentum_scale: float
    momentum_beta: float
    concept: str = ""

    def __call__(self, step, unconditional, conditional, concept, momentum):
        """Compute the safety guidance of one step.

        |phi| is limited to 1, as in diffusers' StableDiffusionPipelineSafe.

        Args:
            step: its number, from 0.
            unconditional, conditional, concept: the UNet's noise [B, C, F, h, w] for the negative
                prompt (eps_u), the prompt (eps_p) and the concept (eps_S).
            momentum: [B, C, F, h, w], zeros at the first step (nu).

        Returns:
            (gamma, to subtract from the guidance direction eps_p - eps_u; the next momentum).
        """
        apart = conditional - concept
        factor = (self.scale * apart).abs().clamp(max=1)  # |phi|
        factor = torch.where(apart < self.threshold, factor, 0)  # mu
        gamma = factor * (concept - unconditional) + self.momentum_scale * momentum
        momentum = self.momentum_beta * momentum + (1 - self.momentum_beta) * gamma
        if step < self.warmup:
            gamma = torch.zeros_like(gamma)
        return gamma, momentum


# As published: warm-up steps, guidance scale, threshold, momentum scale, momentum beta.
SETTINGS = {
    "weak": SafeGuidance(15, 20, 0.0, 0.0, 0.0),
    "medium": SafeGuidance(10, 1000, 0.01, 0.3, 0.4),
    "strong": SafeGuidance(7, 2000, 0.025, 0.5, 0.7),
    "max": SafeGuidance(0, 5000, 1.0, 0.5, 0.7),
}
CHOICES = (NONE, *SETTINGS)


def safe_guidance_of(settings, where=""):
    """Make what the settings ask for.

    Args:
        settings: SamplingSettings (safe_guidance, safety_concept, guidance_scale).
        where: the YAML's path, for messages.

    Returns:
        SafeGuidance, or None for "none".

    Raises:
        InputError: no concept, or no classifier-free guidance that could be bent.
    """
    name = settings.safe_guidance
    concept = settings.safety_concept
    if name == NONE:
        return None
    if not concept.strip():
        raise InputError(
            f"{where}: safe_guidance={name} needs safety_concept, the words of what videos shall "
            "not show"
        )
    if settings.guidance_scale <= 1:
        raise InputError(
            f"{where}: safe_guidance={name} bends the guidance, guidance_scale above 1 is needed, "
            f"found {settings.guidance_scale}"
        )
    return SafeGuidance(**{**vars(SETTINGS[name]), "concept": concept})
