import os
import sys

import yaml

from run import run

CONFIG = os.path.join(os.path.dirname(os.path.abspath(__file__)), "config")


def read(*names):
    with open(os.path.join(CONFIG, *names)) as f:
        return yaml.safe_load(f)


def named(flag):
    return next(word.split("=")[1] for word in sys.argv if word.startswith(flag)) + ".yaml"


if __name__ == "__main__":
    config = read("default.yaml") | read("envs", named("--env-config")) | read("algs", named("--config"))
    for word in sys.argv[sys.argv.index("with") + 1 :]:
        key, value = word.split("=")
        config[key] = yaml.safe_load(value)
    run(config)
