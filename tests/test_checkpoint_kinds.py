"""Other models are called by their kind, from their tensors' names."""

import json

import pytest
import torch
from synthetic import GOLDEN

from unianimate_core import InputError
from unianimate_core.checkpoint import describe, unet_tensors

SD = ("model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight",)
SD += ("model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.decoder.conv_in.weight")
SD_LAST = ("model.diffusion_model.output_blocks.11.0.skip_connection.weight",)
CLIP_L = ("cond_stage_model.transformer.text_model.embeddings.position_embedding.weight",)
OPEN_CLIP = ("cond_stage_model.model.token_embedding.weight", "cond_stage_model.model.ln_final.weight")
XL = ("conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias",)
XL += ("model.diffusion_model.label_emb.0.0.weight",)
FLUX = ("model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale",)
FLUX += ("model.diffusion_model.single_blocks.0.linear1.weight",)
KINDS = {
    "Stable Diffusion 1.5": SD + SD_LAST + CLIP_L,
    "Stable Diffusion 2": SD + SD_LAST + OPEN_CLIP,
    "Stable Diffusion XL": SD + XL,
    "Stable Video Diffusion": (*SD, "model.diffusion_model.input_blocks.1.0.time_stack.in_layers.0.weight"),
    "Stable Diffusion U-Net": ("model.diffusion_model.input_blocks.0.0.weight", *SD_LAST),
    "without UniAnimate's conditions": ("input_blocks.0.0.weight", "input_blocks.1.0.temopral_conv.conv1.0.weight"),
    "Stable Diffusion 3": ("model.diffusion_model.joint_blocks.0.context_block.adaLN_modulation.1.bias",),
    "Flux": ("text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.bias", *FLUX),
    "Wan": ("head.modulation", "blocks.0.self_attn.q.weight", "patch_embedding.weight"),
    "VAE": ("encoder.down.0.block.0.norm1.weight", "decoder.conv_in.weight", "quant_conv.weight"),
    "TAESD": ("taesd_encoder.0.weight", "taesd_decoder.1.weight", "vae_scale"),
    "LoRA": ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "lora_te_text_model.alpha"),
    "LoRA ": ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight",),
    "LoRA  ": ("base_model.model.down_blocks.0.attentions.0.proj_in.lora_A.weight",),
    "LoRA   ": ("unet.up_blocks.1.attentions.0.to_q.lora_linear_layer.up.weight",),
    "LoRA (LyCORIS)": ("ly_unet_mid_block_attentions_0_proj_in.hada_w1_a",),
    "ControlNet": ("control_model.time_embed.0.weight", "control_model.input_hint_block.0.weight"),
    "ControlNet ": ("time_embed.0.weight", "input_hint_block.0.weight", "input_blocks.0.0.weight"),
    "AnimateDiff": ("mid_block.motion_modules.0.temporal_transformer.norm.bias",),
    "CLIP vision": ("vision_model.encoder.layers.0.self_attn.k_proj.weight", "visual_projection.weight"),
    "OpenCLIP": ("visual.conv1.weight", "token_embedding.weight", "transformer.resblocks.0.ln_1.bias"),
    "text encoder": ("text_model.encoder.layers.0.mlp.fc1.bias", "text_model.final_layer_norm.weight"),
    "text encoder ": ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", "shared.weight"),
    "an unknown model (first tensors: x, y)": ("x", "y"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_other_models_are_called_by_their_kind(kind):
    empty = {name: torch.zeros(2, 3) for name in KINDS[kind]}
    description = describe(empty)
    assert kind.strip() in description.kind
    assert description.parameters == 6 * len(empty)
    with pytest.raises(InputError, match=r"x\.pth is not a UniAnimate model") as caught:
        unet_tensors(empty, "x.pth")
    assert kind.strip() in str(caught.value)


def test_the_names_above_are_those_by_which_diffusers_tells_models():
    from diffusers.loaders.single_file_utils import CHECKPOINT_KEY_NAMES as THEIRS

    pairs = {"Stable Diffusion 1.5": ("v1", "v2", "clip"), "Stable Diffusion 2": ("v2", "open_clip"), "Flux": ("flux",)}
    pairs |= {"Stable Diffusion XL": ("xl_base",), "AnimateDiff": ("animatediff_v2",), "ControlNet": ("controlnet",)}
    pairs |= {"Stable Diffusion 3": ("sd3",), "Wan": ("wan",)}
    for kind, entries in pairs.items():
        for entry in entries:
            names = {THEIRS[entry]} if isinstance(THEIRS[entry], str) else set(THEIRS[entry])
            assert names & set(KINDS[kind]), (kind, entry)


def test_diffusers_own_models_are_called_by_their_kind():
    import diffusers

    channels = {"block_out_channels": (32, 32), "layers_per_block": 1}
    down, up = ("DownBlock2D", "CrossAttnDownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D")
    with torch.device("meta"):
        models = {
            "a diffusers U-Net": diffusers.UNet2DConditionModel(**channels, down_block_types=down, up_block_types=up),
            "a ControlNet": diffusers.ControlNetModel(**channels, down_block_types=down),
            "an AnimateDiff motion module": diffusers.MotionAdapter((32,), 1),
            "a VAE": diffusers.AutoencoderKL(),
            "a TAESD autoencoder": diffusers.AutoencoderTiny(),
        }
    for kind, model in models.items():
        assert describe(model.state_dict()).kind == kind


def test_unianimates_own_two_kinds():
    shapes = json.loads((GOLDEN / "checkpoint_keys.json").read_text())
    public = {name: torch.empty(shape, dtype=torch.float16, device="meta") for name, shape in shapes.items()}
    description = describe(public)
    assert description.kind == "a UniAnimate model with temporal transformers"
    assert str(description).endswith("1416.6 M parameters; float16")
    mamba = {"module." + name: tensor for name, tensor in public.items() if ".1.transformer_blocks" not in name}
    mamba["module.input_blocks.0.1.mamba.A_log"] = torch.zeros(4)
    assert describe(mamba).kind == "a UniAnimate model with temporal Mamba"
    assert describe(mamba).precision == "float16, float32"
