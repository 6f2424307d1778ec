r"""MMRPT on SmolVLM2, adapters alone: the family that fits a laptop and a free Colab. Not yet run at full size.

COMMAND:
    hf download HuggingFaceTB/SmolVLM2-256M-Video-Instruct --local-dir checkpoints/SmolVLM2-256M-Video-Instruct
    python -m data_prep.convert --input=captions_train2017.json --images=train2017 --output=data/coco
    python -m experiments.launch --config=experiments/configs/mmrpt_smolvlm.py --workdir=runs/smolvlm \
        --config.data.path=data/coco
    python -m experiments.export --workdir=runs/smolvlm --arm=mmrpt --out=checkpoints/smolvlm_mmrpt
HARDWARE: meant for one device of 16 GB. TESTED: the same stages on a checkpoint of this shape that is small enough for
a test (`tests/published_end_to_end_test.py`).
"""

from ml_collections import ConfigDict

from experiments.configs import mmrpt_qwen2_5_vl


def get_config() -> ConfigDict:
    """The settings of the larger family, with adapters in its decoder and smaller batches."""
    config = mmrpt_qwen2_5_vl.get_config()
    config.title = "MMRPT on SmolVLM2"
    config.init.hf = "checkpoints/SmolVLM2-256M-Video-Instruct"
    config.mesh.update(data=-1, fsdp=1)
    config.train.lora.update(rank=16, alpha=32.0, targets=("decoder",))
    # Up to 16 crops of 512 x 512 pixels and the whole image, each of 1,024 patches and 64 tokens.
    config.data.update(
        patch_counts=(9216, 13_312, 17_408), prompt_lengths=(1280, 1536), branch_lengths=(256,)
    )
    config.fill.update(batch_size=16, learning_rate=1e-4)
    config.score.batch_size = config.evaluate.batch_size = 8
    config.rl.update(prompts_per_step=16, micro_batches=2, learning_rate=2e-5)
    return config
