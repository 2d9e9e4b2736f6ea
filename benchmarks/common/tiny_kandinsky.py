"""Tiny pipelines of Kandinsky 5 and 6 and of Cosmos 3, with random weights."""

from operator import attrgetter
from types import SimpleNamespace

import torch

from benchmarks.common.tiny_inputs import TOKENS, WIDTH, Tiny, embeddings, images, pictures, wide

POOLED = 8  # width of the pooled prompt


def kandinsky5():
    from diffusers import Kandinsky5T2VPipeline

    pipe = Kandinsky5T2VPipeline(**kandinsky5_parts(visual_cond=False))
    return Tiny(pipe, (4, 3, 4, 8), wide(9), kandinsky5_prompts, channels_first)


def kandinsky5_image():
    """The scheduler steps all frames but the first, which is the image's. 25 frames: the first
    four of the latents are matched to the others at the end."""
    from diffusers import Kandinsky5I2VPipeline

    pipe = Kandinsky5I2VPipeline(**kandinsky5_parts(visual_cond=True))
    return Tiny(
        pipe,
        (4, 6, 4, 8),
        wide(25),
        lambda wanted: {**kandinsky5_prompts(wanted), "image": pictures(wanted)},
        lambda frames: channels_first(frames)[:, :, 1:],
    )


def kandinsky5_prompts(wanted):
    lengths = torch.arange(len(wanted) + 1, dtype=torch.int32) * TOKENS
    return {
        "prompt_embeds_qwen": embeddings(wanted),
        "prompt_embeds_clip": embeddings(wanted, 1, POOLED)[:, 0],
        "prompt_cu_seqlens": lengths,
        "negative_prompt_embeds_qwen": torch.zeros(len(wanted), TOKENS, WIDTH),
        "negative_prompt_embeds_clip": torch.zeros(len(wanted), POOLED),
        "negative_prompt_cu_seqlens": lengths,
    }


def kandinsky5_parts(visual_cond):
    from diffusers import FlowMatchEulerDiscreteScheduler, Kandinsky5Transformer3DModel

    transformer = Kandinsky5Transformer3DModel(
        in_visual_dim=4,
        out_visual_dim=4,
        in_text_dim=WIDTH,
        in_text_dim2=POOLED,
        time_dim=16,
        model_dim=16,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=1,
        axes_dims=(4, 6, 6),
        visual_cond=visual_cond,
    )
    with torch.no_grad():
        for weights in transformer.parameters():
            if not weights.any():  # before training, its gates shut out the prompt
                weights.normal_(std=0.1)
    return {
        "transformer": transformer,
        "vae": hunyuan_vae(),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=7.0),
        **dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")),
    }


def kandinsky6():
    """It makes sound too."""
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        Kandinsky6TI2VAPipeline,
        Kandinsky6Transformer3DModel,
        MMAudioVAE,
        MMAudioVocoder,
    )

    pipe = Kandinsky6TI2VAPipeline(
        transformer=Kandinsky6Transformer3DModel(
            in_visual_dim=4,
            out_visual_dim=4,
            in_text_dim=WIDTH,
            in_text_dim2=POOLED,
            time_dim=16,
            model_dim=16,
            ff_dim=32,
            num_text_blocks=1,
            num_visual_blocks=1,
            axes_dims=(4, 6, 6),
            in_audio_dim=4,
            out_audio_dim=4,
            visual_token_type_num_embeddings=2,
        ),
        vae=hunyuan_vae(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        audio_vae=MMAudioVAE(
            mel_bins=8,
            latent_channels=4,
            hidden_channels=8,
            channel_multipliers=(1, 2),
            layers_per_block=1,
            sample_rate=256,
            n_fft=16,
            hop_length=4,
        ),
        vocoder=MMAudioVocoder(
            num_mels=8,
            upsample_initial_channel=8,
            upsample_rates=(2, 2),
            upsample_kernel_sizes=(4, 4),
            resblock_kernel_sizes=(3,),
            resblock_dilation_sizes=((1, 3),),
        ),
        **dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")),
    )

    def prompts(wanted):
        return {
            "prompt_embeds": embeddings(wanted),
            "pooled_prompt_embeds": embeddings(wanted, 1, POOLED)[:, 0],
            "negative_prompt_embeds": torch.zeros(len(wanted), TOKENS, WIDTH),
            "negative_pooled_prompt_embeds": torch.zeros(len(wanted), POOLED),
        }

    return Tiny(pipe, (4, 3, 4, 8), wide(9), prompts)


def cosmos3():
    """One video a call; its prompt is a text, so its kind is told by an image."""
    from diffusers import (
        AutoencoderKLWan,
        Cosmos3OmniPipeline,
        Cosmos3OmniTransformer,
        UniPCMultistepScheduler,
    )

    pipe = Cosmos3OmniPipeline(
        transformer=Cosmos3OmniTransformer(
            head_dim=6,
            hidden_act="relu2",
            hidden_size=6,
            intermediate_size=12,
            latent_channel=16,
            latent_patch_size=1,
            num_attention_heads=1,
            num_hidden_layers=1,
            num_key_value_heads=1,
            patch_latent_dim=16,
            qk_norm_for_text=False,
            rope_axes_dim=[1, 1, 1],
            vocab_size=256,
        ),
        text_tokenizer=Letters(),
        vae=AutoencoderKLWan(
            base_dim=3,
            z_dim=16,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
        ),
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        enable_safety_checker=False,
    )

    def prompts(wanted):
        ((kind, _),) = wanted
        return {"prompt": "wave" if kind > 0 else "tree", "image": images(wanted)}

    fixed = {**wide(9), "use_system_prompt": False, "add_resolution_template": False}
    return Tiny(pipe, (16, 3, 4, 8), fixed, prompts, videos=attrgetter("video"), most=1)


class Letters:
    """A tokenizer with a token for each letter."""

    eos_token_id = 1

    def convert_tokens_to_ids(self, token):
        return 2

    def apply_chat_template(self, conversations, **kwargs):
        text = "".join(turn["content"] for turn in conversations)
        return SimpleNamespace(input_ids=[ord(letter) % 256 for letter in text])


def hunyuan_vae():
    """Three levels, so that a latent stands for 8 x 8 pixels of 4 frames."""
    from diffusers import AutoencoderKLHunyuanVideo

    return AutoencoderKLHunyuanVideo(
        latent_channels=4,
        block_out_channels=(8,) * 3,
        down_block_types=("HunyuanVideoDownBlock3D",) * 3,
        up_block_types=("HunyuanVideoUpBlock3D",) * 3,
        layers_per_block=1,
        norm_num_groups=4,
        mid_block_add_attention=False,
    )


def channels_first(frames):
    """[B, F, h, w, C] → [B, C, F, h, w]"""
    return frames.movedim(-1, 1)
