"""TRL's side of `grpo_step`, run by a Python that has `trl`: GRPOTrainer as its documentation uses it."""

import os
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_DISABLED": "true", "TOKENIZERS_PARALLELISM": "false"}

import torch
import transformers
from datasets import Dataset
from PIL import Image
from trl import GRPOConfig, GRPOTrainer

sys.path.insert(0, str(Path(__file__).parents[1] / "grpo"))
from work import (
    CLIP,
    LEARNING_RATE,
    PIXELS,
    Stopwatch,
    Work,
    count_letters,
    from_command_line,
    model_numbers,
    prompts,
)


class _NoVideos:
    """Stands where the processor of videos would need torchvision."""

    merge_size, temporal_patch_size, valid_kwargs = 2, 2, None
    model_input_names = ("pixel_values_videos", "video_grid_thw")


class _Processor(transformers.Qwen2_5_VLProcessor):
    def check_argument_for_proper_class(self, argument_name, argument):
        return type(argument)


def main(work: Work) -> None:
    """Takes the steps and prints one line about them."""
    watch, shapes = Stopwatch(), set()
    torch.set_num_threads(os.cpu_count())
    torch.manual_seed(0)
    transformers.logging.set_verbosity_error()

    def settled(result=None):
        if work.gpu:
            torch.cuda.synchronize()
        return result

    class Trainer(GRPOTrainer):
        _generate_single_turn = watch.timed("generate", GRPOTrainer._generate_single_turn, settled)

        def _generate_and_score_completions(self, inputs):
            start = time.perf_counter()
            found = settled(super()._generate_and_score_completions(inputs))
            watch.add("collect", time.perf_counter() - start)
            shapes.add((found["prompt_ids"].shape[1], found["completion_ids"].shape[1]))
            return found

    class Steps(transformers.TrainerCallback):
        def on_step_begin(self, *_, **__):
            self._start = time.perf_counter()

        def on_step_end(self, *_, **__):
            settled()
            watch.add("step", time.perf_counter() - self._start)

    reader = _reader(work)
    Trainer(
        model=_model(work),
        reward_funcs=count_letters,
        args=_settings(work),
        train_dataset=_dataset(work),
        processing_class=reader,
        callbacks=[Steps()],
    ).train()
    [(prompt_tokens, answer_tokens)] = shapes
    versions = {name: version(name) for name in ("trl", "torch", "transformers")}
    watch.report(
        work,
        prompt_tokens=prompt_tokens,
        answer_tokens=answer_tokens,
        versions=versions,
        device=torch.cuda.get_device_name() if work.gpu else "cpu",
        device_bytes=torch.cuda.max_memory_allocated() if work.gpu else None,
    )


def _model(work: Work):
    config = transformers.AutoConfig.from_pretrained(work.folder)
    if work.kind == "text":
        text = config.text_config.to_dict() | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
        text = {name: value for name, value in text.items() if name not in ("model_type", "layer_types")}
        config = transformers.Qwen2Config(**text)
    kind = (
        transformers.AutoModelForImageTextToText if work.kind == "vlm" else transformers.AutoModelForCausalLM
    )
    with torch.device("cuda" if work.gpu else "cpu"):
        model = kind.from_config(config, dtype=getattr(torch, work.dtype))
    model.generation_config = transformers.GenerationConfig.from_pretrained(work.folder)
    # GRPOTrainer looks for what `from_pretrained` would have set.
    model.warnings_issued = getattr(model, "warnings_issued", {})
    return model


def _reader(work: Work):
    tokenizer = transformers.AutoTokenizer.from_pretrained(work.folder)
    if work.kind == "text":
        return tokenizer
    images = transformers.Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=PIXELS * PIXELS)
    return _Processor(
        image_processor=images,
        tokenizer=tokenizer,
        video_processor=_NoVideos(),
        chat_template=tokenizer.chat_template,
    )


def _dataset(work: Work) -> Dataset:
    texts = prompts(work)
    if work.kind == "text":
        return Dataset.from_dict({"prompt": texts})
    image = Image.open(Path(work.folder, "image.png"))
    return Dataset.from_list(
        [{"prompt": [{"role": "user", "content": text}], "image": image} for text in texts]
    )


def _settings(work: Work) -> GRPOConfig:
    micro_batch = 1 if work.lean else work.group
    return GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=work.group // micro_batch,
        num_generations=work.group,
        max_completion_length=work.answer,
        generation_kwargs=_generation(work),
        max_steps=work.steps,
        beta=0.0,
        epsilon=CLIP,
        loss_type="grpo",
        learning_rate=LEARNING_RATE,
        **_placement(work),
        # Nothing is written.
        report_to=[],
        logging_steps=1000,
        save_strategy="no",
        disable_tqdm=True,
    )


def _generation(work: Work) -> dict:
    # No token ends an answer.
    options = {"min_new_tokens": work.answer}
    if work.kind == "vlm":
        # A random model would draw placeholders, and the loss fails at one without an image.
        numbers = model_numbers(work)
        options["suppress_tokens"] = [numbers["image_token_id"], numbers["video_token_id"]]
    return options


def _placement(work: Work) -> dict:
    if work.gpu:
        # All else, layers computed twice among it, is as it is by default.
        return {"bf16": work.dtype == "bfloat16"}
    # As fast as it is on CPU: nothing is computed twice.
    return {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "dataloader_pin_memory": False}


if __name__ == "__main__":
    main(from_command_line())
