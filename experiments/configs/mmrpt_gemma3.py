r"""MMRPT on Gemma 3, all weights but the tower's. Not yet run at full size.

COMMAND:
    hf download google/gemma-3-4b-it --local-dir checkpoints/gemma-3-4b-it
    python -m data_prep.convert --input=captions_train2017.json --images=train2017 --output=data/coco
    python -m experiments.launch --config=experiments/configs/mmrpt_gemma3.py --workdir=runs/gemma3 \
        --config.data.path=data/coco
    python -m experiments.export --workdir=runs/gemma3 --arm=mmrpt --out=checkpoints/gemma3_mmrpt
HARDWARE: meant for 16 chips of 95 GB. TESTED: logits of a checkpoint of this shape (`tests/published_parity_test.py`),
and the same stages on two other families.
"""

from ml_collections import ConfigDict

from experiments.configs import mmrpt_qwen2_5_vl


def get_config() -> ConfigDict:
    """The settings of Qwen2.5-VL; the tower rests, as it did when the family was trained."""
    config = mmrpt_qwen2_5_vl.get_config()
    config.title = "MMRPT on Gemma 3"
    config.init.hf = "checkpoints/gemma-3-4b-it"
    config.train.frozen = ("vision/(stack|patch_embedding|positions)",)
    # An image is 896 x 896 pixels: 4,096 patches, which become 256 tokens.
    config.data.update(patch_counts=(4096,), prompt_lengths=(512, 768))
    # Sliding windows cannot tell packed answers apart.
    config.rl.packed_lengths = ()
    return config
