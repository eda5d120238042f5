# SPDX-License-Identifier: Apache-2.0
"""Put the layers of a configuration together; later ones win."""

from __future__ import annotations

import os

from ttyscribe.config import fast, trust
from ttyscribe.config.shell import is_login_shell, shell_in_name, valid_shells
from ttyscribe.errors import ConfigError, UsageError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Generic, Literal, TypedDict, TypeVar, Unpack, overload

    from ttyscribe.config.check import Problems
    from ttyscribe.config.fast import Schema, Values
    from ttyscribe.config.views import Play, Rec, RecSession

    V = TypeVar("V", bound=Mapping[str, object])

    class Base(Generic[V]):
        pass

    class Options(TypedDict, total=False):
        environ: Mapping[str, str]
        name: str
        command_line: Mapping[str, object] | None
        user: int | None
        groups: Iterable[int] | None
        files: Iterable[str] | None
        folder: str | None
        shells: str

else:
    V = None

    class Base:
        # typing's Generic would cost the login path its import.
        def __class_getitem__(cls, item):
            return cls


PROGRAMS = ("rec", "rec-session", "play")

# Where the files are, and where they are under tlog's own program names.
FOLDER = "/etc/ttyscribe"
TLOG_FOLDER = "/etc/tlog"
SHELLS = "/etc/shells"

# The environment variables of each program; tlog-play reads none.
VARIABLES = {
    "rec": "TLOG_REC_CONF_",
    "rec-session": "TLOG_REC_SESSION_CONF_",
    "play": "TLOG_PLAY_CONF_",
}
SHELL_VARIABLE = "TLOG_REC_SESSION_SHELL"
NOT_HONOURED = 'the configuration has not "env": {"conf": true}'

NOTHING: dict[str, str] = {}
BUILT_IN = "built-in"
COMMAND_LINE = "command line"


class Layer:
    """Where settings come from: a name for people, the file if there is one, its text."""

    __slots__ = ("data", "file", "name", "text")

    def __init__(self, name: str, data: Values, file: str | None = None, text: str = "") -> None:
        self.name = name
        self.data = data
        self.file = file
        self.text = text


class Loaded(Base[V]):
    """An effective configuration.

    values: every setting of the program, nested as in its file (views.py has the types).
    warnings: one line each, for the log; the configuration is valid.
    honours: whether a configuration that the environment holds counts.
    """

    def __init__(
        self,
        program: str,
        values: V,
        layers: list[Layer],
        warnings: list[str],
        honours: bool = False,
    ) -> None:
        self.program = program
        self.values = values
        self.layers = layers
        self.warnings = warnings
        self.honours = honours

    def origin(self, path: str) -> str:
        """Where the value of a setting ("log.input") comes from.

        "built-in", "/etc/ttyscribe/rec.conf:12:5", "environment TLOG_REC_CONF_TEXT",
        "symbolic link NAME" or "command line". "session_recording.users[1]" gives the
        place of that element.
        """
        from ttyscribe.config.origin import origin

        return origin(self, path).text


if TYPE_CHECKING:

    @overload
    def load(  # type: ignore[overload-overlap]  # a Literal is a str as well
        program: Literal["rec"], **options: Unpack[Options]
    ) -> Loaded[Rec]: ...
    @overload
    def load(  # type: ignore[overload-overlap]
        program: Literal["rec-session"], **options: Unpack[Options]
    ) -> Loaded[RecSession]: ...
    @overload
    def load(  # type: ignore[overload-overlap]
        program: Literal["play"], **options: Unpack[Options]
    ) -> Loaded[Play]: ...
    @overload
    def load(program: str, **options: Unpack[Options]) -> Loaded[Values]: ...


def load(  # type: ignore[misc]  # the overloads name the types of its values
    program: str,
    *,
    environ: Mapping[str, str] = NOTHING,
    name: str = "",
    command_line: Mapping[str, object] | None = None,
    user: int | None = None,
    groups: Iterable[int] | None = None,
    files: Iterable[str] | None = None,
    folder: str | None = None,
    shells: str = SHELLS,
) -> Loaded[Values]:
    """The effective configuration of a program ("rec", "rec-session" or "play").

    environ: the environment whose TLOG_ variables count, as far as the login shell's
    rules allow. name: argv[0], with or without a path and a login shell's dash; it
    may end in -shell-... and it may be tlog's own. command_line: the options that
    were given, nested as in the file. user: the uid of the recorded user, whose files
    are then refused; groups: their group ids, looked up when they are needed and not
    given. files: read these (they must exist) and no drop-ins, not the default one.
    folder: where the default files are. shells: the list of valid login shells.

    Raises ConfigError (a file or variable is wrong or not to be trusted) and
    UsageError (command_line is).
    """
    schema = fast.load_schema(program)
    name = name.rpartition("/")[2].removeprefix("-")
    tlog = name.startswith("tlog-")
    if folder is None:
        folder = TLOG_FOLDER if tlog else FOLDER
    judge = None if user is None else trust.User(user, groups)
    layers = [Layer(BUILT_IN, fast.defaults(schema))]
    layers += file_layers(program, schema, default_file(program, folder, tlog), files, judge)
    values = merge(layers)
    warnings: list[str] = []
    honour = tlog or program != "rec-session" or value_at(values, "env.conf") is True
    if not (tlog and program == "play"):
        layers += environment_layers(program, schema, environ, honour, warnings)
    if program == "rec-session":
        layers += shell_layers(schema, environ, name, None if tlog else shells, warnings)
    if command_line:
        layers.append(command_line_layer(schema, command_line))
    values = merge(layers)
    require(program, values, layers)
    return Loaded(program, values, layers, warnings, honour)


def default_file(program: str, folder: str = FOLDER, tlog: bool = False) -> str:
    """The path of a program's file; its drop-ins are in the folder of that name with ".d"."""
    return os.path.join(folder, f"tlog-{program}.conf" if tlog else f"{program}.conf")


def built_in(program: str) -> Values:
    """The built-in values: what counts when no configuration can be loaded."""
    return fast.defaults(fast.load_schema(program))


def dump(values: Mapping[str, object]) -> str:
    """The effective configuration as --configuration shows it; a valid configuration file."""
    import json

    return json.dumps(values, indent=2, ensure_ascii=False)


def parse(program: str, schema: Schema, text: str, label: str) -> Values:
    """The settings in a configuration's text. Raises ConfigError with the first problem."""
    values = fast.accept(text, schema)
    if values is None:
        try:
            from ttyscribe.config import check
        except ImportError as error:
            # An installation without pydantic must not end a login in a traceback.
            raise ConfigError(
                f"{label}: not valid; 'ttyscribe config check' would say why, but {error}"
            ) from error
        values, problems = check.examine(program, text)
        if problems:
            raise wrong(label, problems)
    return values


def wrong(label: str, problems: Problems) -> ConfigError:
    more = len(problems) - 1 + problems.more
    tail = f" (and {more} more; see 'ttyscribe config check')" if more else ""
    return ConfigError(problems[0].line_for(label) + tail)


def file_layers(
    program: str,
    schema: Schema,
    path: str,
    files: Iterable[str] | None,
    user: trust.User | None,
) -> list[Layer]:
    """A layer for each file there is, the default one's drop-ins after it."""
    paths = [path, *trust.drop_ins(path + ".d", user)] if files is None else list(files)
    layers = []
    for path in paths:
        text = trust.read(path, user)
        if text is None:
            if files is None:
                continue
            raise ConfigError(f"{path}: can't be read: No such file or directory")
        layers.append(Layer(path, parse(program, schema, text, path), path, text))
    return layers


def environment_layers(
    program: str, schema: Schema, environ: Mapping[str, str], honour: bool, warnings: list[str]
) -> list[Layer]:
    """The layers of _CONF_FILE and _CONF_TEXT, where they are honoured."""
    layers = []
    for variable in conf_variables(program):
        value = environ.get(variable)
        if value is None:
            continue
        if not honour:
            warnings.append(ignored(variable, NOT_HONOURED))
            continue
        label = f"environment {variable}"
        if variable.endswith("TEXT"):
            layers.append(Layer(label, parse(program, schema, value, label), None, value))
            continue
        text = trust.read(value, None) if value else None
        if text is None:
            raise ConfigError(f"{label}: {value!r} can't be read: No such file or directory")
        layers.append(Layer(label, parse(program, schema, text, value), value, text))
    return layers


def conf_variables(program: str) -> tuple[str, str]:
    """The names of the variables that hold a configuration, in the order in which they count."""
    return VARIABLES[program] + "FILE", VARIABLES[program] + "TEXT"


def ignored(variable: str, why: str) -> str:
    """The warning that a variable does not count."""
    return f"environment {variable}: ignored, because {why}"


def shell_layers(
    schema: Schema,
    environ: Mapping[str, str],
    name: str,
    shells: str | None,
    warnings: list[str],
) -> list[Layer]:
    """The shell from the environment, where valid shells allow it, and from the name."""
    layers = []
    shell = environ.get(SHELL_VARIABLE)
    label = f"environment {SHELL_VARIABLE}"
    if shell is not None:
        if shells is None or shell in valid_shells(shells):
            layers.append(shell_layer(schema, label, shell))
        else:
            warnings.append(f"{label}: ignored, because {printable(shell)} is not in {shells}")
    shell = shell_in_name(name)
    if shell is not None:
        layers.append(shell_layer(schema, f"symbolic link {printable(name)}", shell))
    return layers


def shell_layer(schema: Schema, label: str, shell: str) -> Layer:
    try:
        return Layer(label, {"shell": validate(schema, ["shell"], shell)})
    except fast.Refused:
        raise ConfigError(
            f"{label}: shell: {printable(shell)!r} is not a path that begins with /"
        ) from None


def command_line_layer(schema: Schema, command_line: Mapping[str, object]) -> Layer:
    """The options given, validated. Raises UsageError naming the option."""
    return Layer(COMMAND_LINE, checked_options(schema, command_line, []))


def checked_options(schema: Schema, given: Mapping[str, object], keys: list[str]) -> Values:
    values: Values = {}
    for key, value in given.items():
        if isinstance(value, dict):
            values[key] = checked_options(schema, value, [*keys, key])
            continue
        try:
            values[key] = validate(schema, [*keys, key], value)
        except fast.Refused:
            from ttyscribe.config import describe

            part = describe.at(schema, [*keys, key])
            what = f"; allowed: {describe.allowed(part)}" if part else ""
            option = "-".join([*keys, key]).replace("_", "-")
            raise UsageError(f"--{option}: {printable(str(value))!r} is not valid{what}") from None
    return values


def validate(schema: Schema, keys: list[str], value: object) -> object:
    """The value of the setting that keys lead to. Raises Refused."""
    for key in keys:
        schema = schema["properties"][key]  # type: ignore[index]
    return fast.validate(value, schema)


def merge(layers: list[Layer]) -> Values:
    """The settings of all layers in one; a list in a later layer replaces an earlier one."""
    values: Values = {}
    for layer in layers:
        overlay(values, layer.data)
    return values


def overlay(values: Values, data: Values) -> None:
    for key, value in data.items():
        if isinstance(value, dict):
            inner = values.setdefault(key, {})
            overlay(inner, value)  # type: ignore[arg-type]  # as the schema says
        else:
            values[key] = value


def value_at(values: Mapping[str, object], path: str) -> object:
    """The value of a setting by its path ("log.input"). Raises KeyError."""
    value: object = values
    for key in path.split("."):
        value = value[key]  # type: ignore[index]
    return value


def require(program: str, values: Values, layers: list[Layer]) -> None:
    """Raise ConfigError where valid settings don't make sense together."""
    if program != "rec-session":
        return
    shell = str(values["shell"])
    if is_login_shell(shell):
        key, why = "shell", f"{printable(shell)} records; name the shell that it is to start"
    elif values["writer"] == "file" and not value_at(values, "file.path"):
        key, why = "writer", '"file" needs a file; set "file": {"path": "/..."} too'
    else:
        return
    from ttyscribe.config.origin import origin

    where = origin(Loaded(program, values, layers, []), key).text
    raise ConfigError(f"{where}: {key}: {why}")
