"""Import once what jobs import, so that its bytecode lies in .venv.

Where PYTHONDONTWRITEBYTECODE is set, as in many containers, or .venv is read-only to the jobs, every one of them would
else compile torch anew, which takes seconds. `sh envs/install.sh` runs this, with that setting off.
"""

import importlib
import pkgutil

from scatterproof.victims.vision import allow_torchvision

LATE = (  # what is imported within functions, here or in the libraries
    "matplotlib.backends.backend_svg",
    "sklearn.datasets",
    "snakemake.cli",
    "snakemake.executors.local",
    "snakemake.script",
    "stable_baselines3",
    "submitit",
    "torch._dynamo",
    "torchvision",
)


def main() -> None:
    for package in ("scatterproof", "snakemake_executor_plugin_submitit"):
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            importlib.import_module(module.name)
    allow_torchvision()
    for name in LATE:
        importlib.import_module(name)


if __name__ == "__main__":
    main()
