# SPDX-License-Identifier: Apache-2.0
"""The types of the effective values of each program, for type checkers only.

Generated from models.py by `python -m ttyscribe.config.generate`.
"""

from __future__ import annotations

from typing import Literal, TypedDict


class RecLog(TypedDict):
    input: bool
    output: bool
    window: bool
    passwords: bool


class RecLimit(TypedDict):
    rate: int
    burst: int
    action: Literal["pass", "delay", "drop"]


class RecSyslog(TypedDict):
    facility: str
    priority: str


class RecJournal(TypedDict):
    priority: str
    augment: bool


class RecSpool(TypedDict):
    limit: int
    sync: Literal["none", "second", "always"]


class RecFile(TypedDict):
    path: str


class Rec(TypedDict):
    latency: int
    payload: int
    log: RecLog
    limit: RecLimit
    syslog: RecSyslog
    journal: RecJournal
    spool: RecSpool
    file: RecFile
    writer: Literal["journal", "syslog", "file"]


class RecSessionLog(TypedDict):
    input: bool
    output: bool
    window: bool
    passwords: bool


class RecSessionLimit(TypedDict):
    rate: int
    burst: int
    action: Literal["pass", "delay", "drop"]


class RecSessionSyslog(TypedDict):
    facility: str
    priority: str


class RecSessionJournal(TypedDict):
    priority: str
    augment: bool


class RecSessionSpool(TypedDict):
    limit: int
    sync: Literal["none", "second", "always"]


class RecSessionFile(TypedDict):
    path: str


class RecSessionSessionRecording(TypedDict):
    scope: Literal["none", "some", "all"]
    users: list[str]
    groups: list[str]
    exclude_users: list[str]
    exclude_groups: list[str]
    source: Literal["config", "sssd"]


class RecSessionSkip(TypedDict):
    enabled: bool
    commands: list[str]


class RecSessionEnv(TypedDict):
    conf: bool


class RecSession(TypedDict):
    latency: int
    payload: int
    log: RecSessionLog
    limit: RecSessionLimit
    syslog: RecSessionSyslog
    journal: RecSessionJournal
    spool: RecSessionSpool
    shell: str
    notice: str
    file: RecSessionFile
    writer: Literal["journal", "syslog", "file"]
    session_recording: RecSessionSessionRecording
    skip: RecSessionSkip
    lock: Literal["terminal", "session", "none"]
    on_failure: Literal["deny", "allow"]
    on_failure_root: Literal["deny", "allow"]
    on_outage: Literal["freeze", "end"]
    service: Literal["required", "preferred", "off"]
    env: RecSessionEnv


class PlayFile(TypedDict):
    path: str
    match: str


class PlayJournal(TypedDict):
    since: int | str | None
    until: int | str | None
    match: list[str]
    namespace: str


class PlayEs(TypedDict):
    baseurl: str
    query: str
    verbose: bool


class Play(TypedDict):
    reader: Literal["file", "journal"]
    file: PlayFile
    journal: PlayJournal
    es: PlayEs
    speed: float
    follow: bool
    goto: str
    paused: bool
    persist: bool
    lax: bool
    idle_time_limit: float | None
