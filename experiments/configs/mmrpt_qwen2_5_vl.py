r"""MMRPT on Qwen2.5-VL, all weights, on a corpus of captioned images. Not yet run at full size.

COMMAND:
    hf download Qwen/Qwen2.5-VL-3B-Instruct --local-dir checkpoints/Qwen2.5-VL-3B-Instruct
    python -m data_prep.convert --input=captions_train2017.json --images=train2017 --output=data/coco
    python -m experiments.launch --config=experiments/configs/mmrpt_qwen2_5_vl.py --workdir=runs/qwen \
        --config.data.path=data/coco
    python -m experiments.export --workdir=runs/qwen --arm=mmrpt --out=checkpoints/qwen_mmrpt
HARDWARE: meant for 16 chips of 95 GB. TESTED: the same stages on a checkpoint of this shape that is small enough for a
test (`tests/published_end_to_end_test.py`).
"""

from ml_collections import ConfigDict

from experiments.configs import mmrpt_scenes
from mmrpt_jax.data.prompts import TEXT
from mmrpt_jax.data.tokenizer import ANSWER, END_ANSWER, END_THINK, IMAGE, MASK, THINK


def get_config() -> ConfigDict:
    """The policy and its supervised control, in batches and steps of the method's neighbours (RPT, Visual Jigsaw)."""
    config = mmrpt_scenes.get_config()
    config.title = "MMRPT on Qwen2.5-VL"
    config.init.update(hf="checkpoints/Qwen2.5-VL-3B-Instruct", weights="", tokenizer="")
    config.mesh.update(data=1, fsdp=-1, tensor=1)
    config.train.update(compute_dtype="bfloat16", remat="keep_attention")
    config.wording.update(
        caption=f"{IMAGE} Describe the image.",
        fill=(
            f"{IMAGE} A caption of this image breaks off at {MASK}. Look at the image and think about what stands "
            f"there: {THINK}your thoughts{END_THINK}{ANSWER}the missing words{END_ANSWER}. Caption: {TEXT}"
        ),
        question=f"{IMAGE} {TEXT}",
    )
    config.data.update(
        kind="records",
        # An image of 640 x 480 pixels is 1,564 patches, 391 tokens.
        patch_counts=(1024, 2048, 4096),
        prompt_lengths=(512, 1280),
        caption_lengths=(64, 256),
        branch_lengths=(512,),
    )
    config.score.batch_size = 32
    # What the model can guess without the image teaches nothing.
    config.mask.update(blind_reads="prompt", max_blind_probability=0.5)
    config.fill.update(batch_size=64, learning_rate=1e-5, learning_rate_warmup=20)
    config.rl.update(
        steps=500,
        prompts_per_step=128,
        micro_batches=8,
        packed_lengths=(1024, 2048, 3072),
        learning_rate=1e-6,
        learning_rate_warmup=10,
        drop_zero_variance=True,
        oversample=2,
    )
    config.rl.rewards.update(exact_match=1.0, prefix=0.5, grounded_match=0.0, visual_gain=0.5, format=0.1)
    config.evaluate.update(batch_size=32, fill_items=1000)
    return config
