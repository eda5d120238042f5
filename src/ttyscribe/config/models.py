# SPDX-License-Identifier: Apache-2.0
"""Every setting of the three programs: its name, type, range, default and help, once.

The JSON Schemas, the commented files in conf/, the typed views and the help of
`config` are generated from here (`python -m ttyscribe.config.generate`). Nothing
on the login path imports this module, because pydantic takes longer to import
than a login may take; fast.py reads the generated schemas instead.

The first sentence of a description is the option's help; the rest is for the
configuration file and the manual. tlog's names, ranges and defaults are those of
tlog 12.1's manual pages and of its --configuration.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

Facility = Literal[
    "auth", "authpriv", "cron", "daemon", "ftp", "kern", "local0", "local1", "local2", "local3",
    "local4", "local5", "local6", "local7", "lpr", "mail", "news", "syslog", "user", "uucp",
]  # fmt: skip
Priority = Literal["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"]

# JSON has no bound for numbers; these keep one that is merely absurd from
# overflowing a timer or a C integer later, in the middle of a login.
MOST_SECONDS = 2**31 - 1
MOST_PAYLOAD = 2**30
MOST_BYTES = 2**63 - 1

# No file name, user name or message of the operating system can hold a NUL.
TEXT = r"^[^\u0000]*$"
PATH_OR_EMPTY = r"^(/[^\u0000]*)?$"
PATH = r"^/[^\u0000]*$"
NOT_EMPTY = r"^[^\u0000]+$"

Text = Annotated[str, Field(pattern=TEXT)]
NotEmpty = Annotated[str, Field(pattern=NOT_EMPTY)]


def separated(value: object) -> object:
    """A comma-separated string as the list it stands for; anything else as it is."""
    if isinstance(value, str):
        return [name for name in (part.strip(" \t\r\n") for part in value.split(",")) if name]
    return value


Names = Annotated[
    list[NotEmpty],
    BeforeValidator(separated),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": {"type": "string", "pattern": NOT_EMPTY}},
                {"type": "string", "pattern": TEXT},
            ],
            # For fast.py: a string here stands for a list.
            "x-comma-separated": True,
        }
    ),
]


class Section(BaseModel):
    """A group of settings: no others than those named, and no conversion between types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Log(Section):
    input: bool = Field(
        default=False,
        description="Log what the user types, or what else is standard input. What a command"
        " leaves of a pipe is then lost to whoever reads from it next, as to a script's loop over"
        " its lines; what it leaves of a file or a stream socket is not.",
    )
    output: bool = Field(default=True, description="Log what the terminal shows.")
    window: bool = Field(default=True, description="Log changes of the terminal window's size.")
    passwords: bool = Field(
        default=False,
        description="With input logged, log passwords as typed. Otherwise what is typed at a"
        " password prompt (the terminal has echo off and line editing on) is stored as one"
        " * per character.",
    )


class Limit(Section):
    rate: int = Field(
        default=16384,
        ge=0,
        le=MOST_BYTES,
        description="The most bytes of messages to log per second.",
    )
    burst: int = Field(
        default=32768,
        ge=0,
        le=MOST_BYTES,
        description="The bytes by which messages may exceed the rate for a moment.",
    )
    action: Literal["pass", "delay", "drop"] = Field(
        default="pass",
        description='What to do above the limit. "pass" sets no limit, "delay" slows the'
        ' terminal down, "drop" leaves messages out of the recording.',
    )


class RecFile(Section):
    path: Text = Field(
        default="",
        description='The file the "file" writer appends to. Empty: a new file in the user\'s'
        " state folder.",
    )


class RecSessionFile(Section):
    path: str = Field(
        default="",
        pattern=PATH_OR_EMPTY,
        description='The file the "file" writer appends to, from / on. Needed when "writer" is'
        ' "file"; empty: none.',
    )


class Syslog(Section):
    facility: Facility = Field(
        default="authpriv", description='The facility of the "syslog" writer.'
    )
    priority: Priority = Field(default="info", description='The priority of the "syslog" writer.')


class RecJournal(Section):
    priority: Priority = Field(default="info", description='The priority of the "journal" writer.')
    augment: bool = Field(
        default=True,
        description="Copy fields of a message into the journal entry: rec to TLOG_REC, user to"
        " TLOG_USER, session to TLOG_SESSION, id to TLOG_ID.",
    )


class Spool(Section):
    limit: int = Field(
        default=2**30,
        ge=0,
        le=MOST_BYTES,
        description="The most bytes to keep on disk of what could not be delivered yet. 0: no"
        " limit.",
    )
    sync: Literal["none", "second", "always"] = Field(
        default="second",
        description='How often the spool, and the file of the "file" writer, is forced to the'
        ' disk. With "always" a power cut loses nothing, with "second" at most what a second'
        ' brought; "none" leaves it to the system and still survives the end of the recorder.'
        " What journald or syslog has taken is in its hands: see SyncIntervalSec= in"
        " journald.conf(5).",
    )


class Recording(Section):
    """What rec and rec-session have in common."""

    latency: int = Field(
        default=10,
        ge=1,
        le=MOST_SECONDS,
        description="Seconds to hold captured data back before it is logged. A message is"
        " written earlier when its payload is full.",
    )
    payload: int = Field(
        default=2048,
        ge=32,
        le=MOST_PAYLOAD,
        description="The most bytes of encoded data in a message. When it is full, the message"
        " is logged.",
    )
    log: Log = Field(default=Log(), description="What is logged.")
    limit: Limit = Field(default=Limit(), description="How much may be logged.")
    syslog: Syslog = Field(default=Syslog(), description='Settings of the "syslog" writer.')
    journal: RecJournal = Field(
        default=RecJournal(), description='Settings of the "journal" writer.'
    )
    spool: Spool = Field(
        default=Spool(),
        description="The copy on disk that a recording survives in when its writer fails.",
    )


class Rec(Recording):
    """ttyscribe rec"""

    file: RecFile = Field(default=RecFile(), description='Settings of the "file" writer.')
    writer: Literal["journal", "syslog", "file"] = Field(
        default="file", description="Where messages go. Each of these has settings of its own."
    )


class Environment(Section):
    conf: bool = Field(
        default=False,
        description="Take settings from TLOG_REC_SESSION_CONF_FILE and"
        " TLOG_REC_SESSION_CONF_TEXT. The recorded user sets the environment, so with true"
        " that user decides what is recorded. A login that has one of them records by itself,"
        ' with its user\'s rights; with "service" "required" they are ignored.',
    )


class SessionRecording(Section):
    scope: Literal["none", "some", "all"] = Field(
        default="all",
        description='Who is recorded. "some" means those of "users" and "groups"; "all" means'
        ' everyone but those of "exclude_users" and "exclude_groups".',
    )
    users: Names = Field(default=[], description='Users recorded with scope "some".')
    groups: Names = Field(
        default=[], description='Groups whose members are recorded with scope "some".'
    )
    exclude_users: Names = Field(default=[], description='Users not recorded with scope "all".')
    exclude_groups: Names = Field(
        default=[], description='Groups whose members are not recorded with scope "all".'
    )
    source: Literal["config", "sssd"] = Field(
        default="config",
        description='Where these rules are taken from. "sssd" reads the section'
        " [session_recording] of /etc/sssd/sssd.conf and /etc/sssd/conf.d/*.conf instead.",
    )


class Skip(Section):
    enabled: bool = Field(
        default=True,
        description="Run file transfers and other programs' protocols without a recording.",
    )
    commands: list[NotEmpty] = Field(
        default=[
            "sftp-server",
            "internal-sftp",
            "scp -t",
            "scp -f",
            "rsync --server",
            "git-upload-pack",
            "git-receive-pack",
            "borg serve",
        ],
        description="The commands that are skipped when nothing but one of them is asked for and"
        " there is no terminal. A program's name or path and the words that must follow; a list"
        " here replaces the built-in one. They are run without the shell's startup files,"
        " and so without a umask that is set there.",
    )


class RecSession(Recording):
    """ttyscribe rec-session, the login shell"""

    shell: str = Field(
        default="/bin/bash", pattern=PATH, description="The shell to start, with its full path."
    )
    notice: Text = Field(
        default="\nATTENTION! Your session is being recorded!\n\n",
        description="The text shown before an interactive session that is recorded. Empty: none.",
    )
    file: RecSessionFile = Field(
        default=RecSessionFile(), description='Settings of the "file" writer.'
    )
    writer: Literal["journal", "syslog", "file"] = Field(
        default="journal", description="Where messages go. Each of these has settings of its own."
    )
    session_recording: SessionRecording = Field(
        default=SessionRecording(), description="Who is recorded."
    )
    skip: Skip = Field(default=Skip(), description="What is not recorded.")
    lock: Literal["terminal", "session", "none"] = Field(
        default="terminal",
        description="What is recorded only once at a time: a terminal or an audit session."
        ' With "session", as in tlog, a second terminal of a session is not recorded.',
    )
    on_failure: Literal["deny", "allow"] = Field(
        default="deny",
        description='What happens to a login whose recording can\'t start. "allow" lets the user'
        " in unrecorded; either way it is logged.",
    )
    on_failure_root: Literal["deny", "allow"] = Field(
        default="allow", description="The same for root, who may have to repair it."
    )
    on_outage: Literal["freeze", "end"] = Field(
        default="freeze",
        description='What happens to a session that can be recorded no longer. "freeze" stops'
        ' its terminal until recording works again, "end" ends it.',
    )
    service: Literal["required", "preferred", "off"] = Field(
        default="preferred",
        description="Whether the recorder service records the login, out of its user's reach."
        ' With "preferred" the login shell records by itself when the service does not run, with'
        ' "off" always.',
    )
    env: Environment = Field(
        default=Environment(), description="What the login's environment may decide."
    )


class PlayFile(Section):
    path: Text = Field(default="", description='The file the "file" reader reads. Empty: none.')
    match: Text = Field(
        default="", description="The id of the recording to play, of several in a file. Empty: any."
    )


class ElasticSearch(Section):
    baseurl: Text = Field(default="", description="tlog's address of an Elasticsearch server.")
    query: Text = Field(default="", description="tlog's query to an Elasticsearch server.")
    verbose: bool = Field(default=False, description="tlog's switch for a verbose HTTP client.")


Moment = Annotated[int, Field(ge=0, le=MOST_BYTES)] | NotEmpty | None


class PlayJournal(Section):
    since: Moment = Field(
        default=None,
        description="Begin to search the journal at this time. Seconds since 1970, or a time as"
        ' journalctl takes it ("-20min", "2026-09-03 14:00"); null: at its beginning.',
    )
    until: Moment = Field(
        default=None,
        description="End the search at this time. As since; null: at the journal's end.",
    )
    match: list[NotEmpty] = Field(
        default=[],
        description='What the journal entries of the recording match. FIELD=value, or "OR" and'
        ' "AND" between them.',
    )
    namespace: Text = Field(
        default="", description="The only journal namespace to search. Empty: all of the machine's."
    )


class Play(Section):
    """ttyscribe play"""

    reader: Literal["file", "journal"] = Field(
        default="file", description="Where the recording is read."
    )
    file: PlayFile = Field(default=PlayFile(), description='Settings of the "file" reader.')
    journal: PlayJournal = Field(
        default=PlayJournal(), description='Settings of the "journal" reader.'
    )
    es: ElasticSearch = Field(
        default=ElasticSearch(),
        description="Accepted for tlog's sake, has no effect.",
        json_schema_extra={"x-no-effect": True},
    )
    speed: float = Field(default=1.0, ge=0, le=1e6, description="How many times faster to play.")
    follow: bool = Field(
        default=False, description="At the end wait for new messages and play them."
    )
    goto: Text = Field(
        default="",
        description='Play at full speed up to this point. "start", "end" or [[HH:]MM:]SS[.sss];'
        " empty: the start.",
    )
    paused: bool = Field(default=False, description="Start paused.")
    persist: bool = Field(
        default=False, description="Ignore the quit key and the signals of the keyboard."
    )
    lax: bool = Field(default=False, description="Go on where messages are missing.")
    idle_time_limit: Annotated[float, Field(gt=0, le=MOST_SECONDS)] | None = Field(
        default=None, description="Shorten pauses to this many seconds. null: play them in full."
    )


MODELS: dict[str, type[Section]] = {"rec": Rec, "rec-session": RecSession, "play": Play}
