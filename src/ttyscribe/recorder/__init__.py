# SPDX-License-Identifier: Apache-2.0
"""The privileged recorder service and its thin login-shell client.

service.py is the parent: it accepts and forks. child.py is one session, from the
handshake to the end of the recording, and terminal.py the user's terminal meanwhile.
reach.py and client.py are what the login shell does instead of recording itself, before
and while the shell runs; they run as the user and are trusted with nothing: who
they are, the kernel tells. wire.py is what passes between the two.
"""
