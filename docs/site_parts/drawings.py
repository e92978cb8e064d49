"""The drawings of "How it works"."""

from pathlib import Path


def save_all(folder: Path) -> None:
    """Save every drawing as SVG."""
    folder.mkdir(exist_ok=True)
