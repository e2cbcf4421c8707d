"""What the durability tests share: the preload library, and one recorded story."""

from __future__ import annotations

from pathlib import Path

import pytest
from recording import build_library
from stories import Story, record_story
from workload import STORY


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The preload library, compiled."""
    return build_library(tmp_path_factory.mktemp("preload"))


@pytest.fixture(scope="session")
def story(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """All lives of the workload, one after the other on one heap."""
    return record_story(library, tmp_path_factory.mktemp("story"), STORY)
