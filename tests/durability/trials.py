"""Runs trial_server.py under the preload library and reads its answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from recording import HERE, preload_environment


def run_trials(library: Path, directory: Path, **request: Any) -> dict[str, Any]:
    """One request (trial_server.Request); no problem may be found. Returns the answer."""
    place = directory / "_".join(map(str, request.values())).replace("/", "-").replace(" ", "")[:80]
    place.mkdir()
    command = [sys.executable, str(HERE / "trial_server.py"), str(place), json.dumps(request)]
    environment = os.environ | preload_environment(library, place.resolve())
    environment["RECORDER_SKIP_SYNCS"] = "1"
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{request}\n{done.stdout}\n{done.stderr}"
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{request}: {answer['trials']} of {answer['reached']}, {answer['outcomes']}")
    assert answer["problems"] == [], "\n".join([str(request), *answer["problems"]])
    return answer
