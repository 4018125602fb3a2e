"""The one place of the version."""

VERSION = "0.1.0"
COMMIT = "none"
BUILD_DATE = "unknown"
"""What the build says of itself to management clients; an installation from source knows neither."""
