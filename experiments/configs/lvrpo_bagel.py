"""LVRPO on BAGEL-7B-MoT: adapters in both experts, drawings of 512 x 512 pixels. Not yet run at full size.

COMMAND:
    python -m experiments.launch --config=experiments/configs/lvrpo_bagel.py --workdir=runs/lvrpo_bagel \\
        --config.init.hf=FOLDER

FOLDER is the checkpoint as it is published: `ema.safetensors`, `ae.safetensors`, `llm_config.json`, `vit_config.json`
and the tokenizer. It says what the model is; `config.model` is not read. Prompts, questions and the verifier of
drawings are those of the embedded world, whose pictures are enlarged. A run in miniature is in
`tests/lvrpo_published_test.py`.
"""

from ml_collections import ConfigDict

from experiments.configs import lvrpo_scenes
from mmrpt_jax.data.tokenizer import IMAGE


def get_config() -> ConfigDict:
    """Base, supervised control at equal compute and LVRPO, one seed, from a checkpoint that is given."""
    config = lvrpo_scenes.get_config()
    config.title = "LVRPO on BAGEL"
    config.init.update(weights="", autoencoder="", tokenizer="")
    config.mesh.update(data=1, fsdp=-1)
    config.train.update(param_dtype="bfloat16", compute_dtype="bfloat16", remat="full")
    config.train.lora.update(rank=32, alpha=64.0, targets=("decoder",))
    config.latent.update(autoencoder="kl", image_size=(512, 512))
    config.wording.update(
        caption=f"{IMAGE} Describe the image.",
        # It thinks in these tags; what is in the answer's it has to be told.
        question=f"{IMAGE} {{text}} Write <think></think> and then <answer>one word</answer>.",
        drawing="{text}",
    )
    # The tower sees 16 x 16 patches of a picture of the world, two marks beside them; words have more than one token.
    config.data.update(
        prompt_lengths=(320,),
        patch_counts=(256,),
        drawing_lengths=(64,),
        caption_lengths=(96,),
        branch_lengths=(32,),
    )
    config.drawing.update(batch_size=16, repeats=1, shift=1.0)
    for section in ("pretrain", "sft"):
        config[section].learning_rate = 1e-4
    config.align.update(steps=200, learning_rate=1e-4)
    config.understanding.update(prompts_per_step=8, micro_batches=1)
    # As Flow-GRPO and UniGRPO have it: noise in the first steps alone, no guidance while learning.
    config.generation.update(prompts_per_step=8, micro_batches=1, algorithm="grpo", questions_at_a_time=16)
    config.generation.sampler.update(kind="flow_sde", steps=16, shift=3.0, window=(0, 4))
    config.generation.losses.grpo.update(kl="velocity", kl_coefficient=1e-3)
    config.evaluate.update(steps=50, guidance=4.0, batch_size=8, caption_tokens=96)
    return config
