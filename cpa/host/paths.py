"""Where plugins and operators are served over HTTP; apart, because every request's path is compared with these."""

from typing import Final

MANAGEMENT: Final = "/v0/management"
RESOURCES: Final = "/v0/resource/plugins"
