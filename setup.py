"""Metadata of jaxret; `make` installs the versions pinned in requirements.lock."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "jaxret/__init__.py").read_text()).group(1)

setup(
    name="jaxret",
    version=VERSION,
    description="Train, search and evaluate multilingual text retrievers in JAX, from a laptop to a TPU pod",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["jaxret", "jaxret.*"]),
    package_data={"jaxret": ["py.typed", "eval/report/*.html"]},
    entry_points={"console_scripts": ["jaxret = jaxret.cli.main:program"]},
    install_requires=[
        "bm25s>=0.2.7",
        "flax>=0.12",
        "gin-config>=0.5",
        "huggingface-hub>=1",
        "jax>=0.10",
        "jaxtyping>=0.3",
        "jinja2>=3.1",
        "matplotlib>=3.9",
        "ml-dtypes>=0.4",
        "numpy>=2",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.11",
        "PyStemmer>=3",
        "rich>=13",
        "safetensors>=0.5",
        "scipy>=1.13",
        "sentencepiece>=0.2",
        "seqio>=0.0.19",
        "tensorboardX>=2.6",
        "tensorflow>=2.18",
        "tensorflow-datasets>=4.9",
        "tensorflow-text>=2.18",
        "tokenizers>=0.22",
        "transformers>=5",
        "typer>=0.15",
    ],
    extras_require={
        "tpu": ["jax[tpu]>=0.10"],
        "gpu": ["jax[cuda13]>=0.10"],
        "ja": ["fugashi>=1.3", "unidic-lite>=1.0.8"],
        "test": [
            "beartype>=0.19",
            "hypothesis>=6",
            "ir_measures>=0.3.7",
            "mypy>=1.13",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "pytrec_eval-terrier>=0.5.6",
            "ruff>=0.8",
        ],
    },
)
