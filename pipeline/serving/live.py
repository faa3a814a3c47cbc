"""Settings that change while an endpoint runs: Ray Serve's `user_config`.

Ray Serve restarts replicas whose arguments change, and calls `reconfigure` of those whose
`user_config` alone changes. So what needs no restart stands there, beside the arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import SettingsError
from pipeline.serving.settings import ServeSettings
from pipeline.settings import changed

LIVE_FIELDS = ("limits", "sampling", "speech_description", "voice_aliases")
"""Fields of `ServeSettings` that may change without a restart."""


class LiveSettings:
    """The settings of an endpoint, some of which change while it runs.

    Args:
        deployed: What the endpoint was started with.

    Attributes:
        now: The settings that are in force.
    """

    def __init__(self, deployed: ServeSettings) -> None:
        self._deployed = deployed
        self.now = deployed

    def changed(self, user_config: Mapping[str, Any]) -> ServeSettings:
        """The settings with a `user_config`; what it leaves out is as deployed.

        Raises:
            SettingsError: If a field needs a restart, is unknown or out of range.
        """
        for name in user_config:
            if name not in LIVE_FIELDS:
                raise SettingsError(
                    f"user_config has {name!r}; without a restart {', '.join(LIVE_FIELDS)} "
                    "change: put others into the arguments of the application"
                )
        return changed(self._deployed, user_config)
