"""Runs one agent as its own process: `python agent_process.py NAME`, with the settings of the environment."""

import sys

from dealeriq.settings import load
from streams.agents.process import main
from streams.agents.settings import AgentSettings

if __name__ == "__main__":
    settings = load()
    sys.exit(
        main(
            sys.argv[1],
            settings.kafka,
            settings.registry,
            settings.data_dir,
            AgentSettings(batch_size=16, retry_most_s=0.5),
        )
    )
