"""Runs only where `make test-agents` has installed the agents and says where."""

import os

AGENTS = "CPA_TEST_AGENTS"
"""Names the directory into which the agents are installed."""

collect_ignore_glob = [] if os.environ.get(AGENTS) else ["test_*.py"]
