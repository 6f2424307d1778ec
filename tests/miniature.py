"""Both methods end to end, at sizes that a test can afford."""

from ml_collections import ConfigDict

from experiments.configs import lvrpo_bagel, lvrpo_scenes, mmrpt_scenes


def miniature_config() -> ConfigDict:
    """The main job with a toy model, two dozen scenes and a handful of steps; only the tokenizer is the shipped one."""
    config = mmrpt_scenes.get_config()
    config.init.weights = ""
    config.log_every, config.save_every, config.overlays = 1, 2, 2
    config.data.update(records=24, caption_records=64, prompt_lengths=(64,), caption_lengths=(48,))
    small = {"width": 32, "layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 16, "mlp": 32, "unroll": 1}
    config.model.decoder.update(small)
    config.model.vision.transformer.update(small)
    config.model.vision.patch_size = 16
    config.caption.update(steps=4, batch_size=8, captions_per_image=2, warmup=1)
    config.score.batch_size = 8
    config.fill.update(warmup_steps=2, batch_size=8)
    config.rl.update(steps=5, prompts_per_step=8, group_size=4)
    config.finetune.update(steps=2, questions=16, batch_size=8)
    config.evaluate.update(worlds=("biased", "flipped"), batch_size=8, fill_items=10, cloze_items=10)
    return config


def miniature_lvrpo_config() -> ConfigDict:
    """LVRPO with a toy model that draws four tokens, and a handful of steps; only the tokenizer is the shipped one."""
    config = lvrpo_scenes.get_config()
    config.init.weights = config.init.autoencoder = ""
    config.log_every, config.save_every = 1, 2
    small = {"width": 16, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 8, "mlp": 16, "unroll": 1}
    config.model.decoder.update(small)
    config.model.vision.transformer.update(small)
    config.model.vision.patch_size = 32
    config.latent.downsample = 16
    config.data.update(scenes=96, caption_records=96, prompt_lengths=(40,))
    config.caption.update(batch_size=8, captions_per_image=1)
    config.question.batch_size = 8
    config.drawing.update(batch_size=8, repeats=1)
    config.pretrain.steps = 3
    config.align.update(steps=3, sheet_every=2)
    config.understanding.update(prompts_per_step=8, oversample=2, rollout_parts=2, group_size=2)
    config.generation.update(prompts_per_step=8, group_size=2, drop_zero_variance=False)
    config.generation.algorithm = "grpo"
    config.generation.sampler.update(kind="flow_sde", steps=3, window=(0, 2))
    config.evaluate.update(prompts=8, samples=2, steps=2, questions=10, batch_size=8)
    return config


def miniature_published_config(folder: str) -> ConfigDict:
    """LVRPO on a checkpoint that draws, a handful of steps of adapters."""
    config = lvrpo_bagel.get_config()
    config.init.hf = folder
    config.arms = ("base", "lvrpo")
    config.log_every, config.save_every = 1, 2
    config.mesh.update(data=-1, fsdp=1)
    config.train.update(param_dtype="float32", compute_dtype="float32")
    config.train.lora.update(rank=2, alpha=4.0)
    config.latent.image_size = (64, 64)
    # Of few tokens, words have many.
    config.data.update(
        scenes=96,
        prompt_lengths=(192,),
        patch_counts=(36,),
        drawing_lengths=(96,),
        caption_lengths=(160,),
        branch_lengths=(64,),
    )
    config.question.batch_size = config.drawing.batch_size = 8
    config.align.update(steps=2, sheet_every=2, learning_rate_warmup=0)
    # Untrained, it earns nothing by rules: it is to be less sure of answers, and to draw what it reads prompts from.
    config.understanding.update(prompts_per_step=8, oversample=1, group_size=2)
    config.understanding.loss.entropy_coefficient = 0.1
    config.generation.update(prompts_per_step=8, group_size=2, drop_zero_variance=False)
    config.generation.advantage.min_std = 0.0
    config.generation.losses.grpo.update(kl="none", kl_coefficient=0.0)
    config.generation.sampler.update(steps=2, window=(0, 1))
    config.evaluate.update(
        prompts=8,
        samples=1,
        steps=2,
        guidance=2.0,
        questions=8,
        batch_size=8,
        caption_tokens=16,
        drawn_worlds=("biased",),
        question_worlds=("biased",),
    )
    return config


def get_config(method: str = "mmrpt") -> ConfigDict:
    """What `experiments.launch --config=tests/miniature.py` looks for; with `:lvrpo` behind it, the other method."""
    return {"mmrpt": miniature_config, "lvrpo": miniature_lvrpo_config}[method]()
