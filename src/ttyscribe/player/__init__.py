# SPDX-License-Identifier: Apache-2.0
"""Replaying events on a terminal: clock, keys, screen; or copying them, for pipes.

Stream gives a recording's events; copy_output copies their output; Playback plays
them on a Screen. Import each from its module: a copy needs little of the rest.
"""
